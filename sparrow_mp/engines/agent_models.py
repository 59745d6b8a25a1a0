"""Which models an agent works with: names become models of pydantic-ai, in the order in which they are asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from pydantic_ai.exceptions import UserError

from sparrow_mp.engines.agent_secrets import key_of
from sparrow_mp.settings import Config, EndpointSettings

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelResponse
    from pydantic_ai.models import Model

USUAL_WINDOW = 32_768

USUAL_MODELS = {
    "OPENAI_API_KEY": "openai:gpt-5.6-luna",
    "ANTHROPIC_API_KEY": "anthropic:claude-haiku-5-5",
    "GOOGLE_API_KEY": "google:gemini-3.8-flash",
    "MISTRAL_API_KEY": "mistral:mistral-medium-latest",
}
"""What is asked where no model is chosen, by the key that is there: the provider's usual small one."""


class ModelUnusable(Exception):
    """A model cannot even be asked; the message says why."""


class Choice(NamedTuple):
    """A model that is to be asked: by `provider:model`, or at an endpoint."""

    name: str
    endpoint: EndpointSettings | None = None
    window: int = 0
    """Tokens; 0 where that has to be found out."""
    key: str | None = None
    """Where it is known already."""
    tools: bool = True
    """Whether it is worth while to offer it tools."""


@dataclass
class Candidate:
    """A model that can be asked."""

    name: str
    model: Model
    window: int
    input_price: float = 0.0
    output_price: float = 0.0

    @property
    def address(self) -> str:
        """The host and port that are asked, where that is known."""
        try:
            return urlsplit(self.model.base_url or "").netloc.rpartition("@")[2]
        except (UserError, ValueError):
            return ""

    def cost(self, response: ModelResponse) -> float | None:
        """What a response has cost in USD; None where no price is known."""
        usage = response.usage
        if self.input_price or self.output_price:
            return (usage.input_tokens * self.input_price + usage.output_tokens * self.output_price) / 1e6
        try:
            price: Decimal = response.cost().total_price
        except (LookupError, ValueError, AssertionError):
            return None
        return float(price)


def choices(config: Config, asked: str | None, env: Mapping[str, str]) -> list[Choice]:
    """The models in the order in which they are asked; none where none is chosen. ``asked`` is a list with commas."""
    names = [name.strip() for name in asked.split(",") if name.strip()] if asked else config.models.chain
    if not names:
        names = [model for variable, model in USUAL_MODELS.items() if env.get(variable)][:1]
    return [_choice(name, config) for name in names]


def _choice(name: str, config: Config) -> Choice:
    models = config.models
    endpoint = config.endpoints.get(name)
    if endpoint is not None:
        return Choice(name, endpoint, endpoint.context_window or models.context_window)
    if ":" not in name or (models.base_url and not _is_provider(name.partition(":")[0])):  # Ollama's `qwen3:8b`
        given = EndpointSettings(base_url=models.base_url, model=name, key_env=models.key_env)
        return Choice(name, given, models.context_window)
    return Choice(name, None, models.context_window)


def _is_provider(name: str) -> bool:
    from pydantic_ai.providers import infer_provider_class

    try:
        infer_provider_class(name)
    except ImportError:
        return True
    except ValueError:
        return False
    return True


def open_model(choice: Choice, env: Mapping[str, str]) -> Candidate:
    """Make it a model that can be asked. Raises ModelUnusable."""
    try:
        if choice.endpoint is None:
            return _of_provider(choice)
        return _at_endpoint(choice, choice.endpoint, env)
    except ModelUnusable:
        raise
    except (UserError, ValueError) as error:
        raise ModelUnusable(" ".join(str(error).split())) from None
    except ImportError as error:
        raise ModelUnusable(_missing_library(choice.name, error)) from None
    except Exception as error:  # each provider's library has its own for a missing key or an odd address
        raise ModelUnusable(f"{type(error).__name__}: {' '.join(str(error).split())}") from None


def _of_provider(choice: Choice) -> Candidate:
    from pydantic_ai.models import infer_model

    model: Model = infer_model(choice.name)
    return Candidate(choice.name, model, choice.window or model.context_window or USUAL_WINDOW)


def _at_endpoint(choice: Choice, endpoint: EndpointSettings, env: Mapping[str, str]) -> Candidate:
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider

    if not endpoint.base_url:
        raise ModelUnusable(
            f"it is unknown: write `provider:model`, such as openai:{choice.name}, or say where it is: [endpoints.{choice.name}]"
            " base_url, or SPARROW_MODELS_BASE_URL"
        )
    if not endpoint.base_url.startswith(("http://", "https://")):
        raise ModelUnusable(f"its address {endpoint.base_url} is none: it has to begin with http:// or https://")
    key = key_of(endpoint.key_env, env) if endpoint.key_env else choice.key
    if endpoint.key_env and not key:
        raise ModelUnusable(
            f"its key is missing: set the variable {endpoint.key_env}, or keep it with: keyring set sparrow {endpoint.key_env}"
        )
    provider = OpenAICompatibleProvider("endpoint", base_url=endpoint.base_url, api_key=key)
    model = OpenAIChatModel(endpoint.model or choice.name, provider=provider)
    window = choice.window or model.context_window or USUAL_WINDOW
    return Candidate(choice.name, model, window, endpoint.input_price, endpoint.output_price)


def _missing_library(name: str, error: ImportError) -> str:
    provider = name.partition(":")[0]
    extra: Any = {"google-gla": "google", "google-vertex": "google", "google-cloud": "google"}.get(provider, provider)
    return f"its library is missing ({error.name or 'see above'}): pip install 'pydantic-ai-slim[{extra}]'"
