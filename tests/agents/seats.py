"""How each agent is told to talk to the tests' model server and nobody else: files in its home, and variables."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

Seat = Callable[[Path, str], dict[str, str]]
"""Takes the home and the server's address, writes the agent's files, and gives the variables that it needs."""


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _opencode(home: Path, url: str) -> dict[str, str]:
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "local",
        "options": {"baseURL": f"{url}/v1", "apiKey": "x"},
        "models": {"m": {"name": "m"}},
    }
    config = {
        "model": "local/m",
        "small_model": "local/m",
        "autoupdate": False,
        "share": "disabled",
        "provider": {"local": provider},
    }
    _write(home / ".config" / "opencode" / "opencode.json", json.dumps(config))
    return {"OPENCODE_DISABLE_MODELS_FETCH": "1", "OPENCODE_DISABLE_LSP_DOWNLOAD": "1"}


def _qwen(home: Path, url: str) -> dict[str, str]:
    settings = {
        "security": {"auth": {"selectedType": "openai"}},
        "privacy": {"usageStatisticsEnabled": False},
        "general": {"disableAutoUpdate": True, "enableAutoUpdate": False},
    }
    _write(home / ".qwen" / "settings.json", json.dumps(settings))
    return {"OPENAI_API_KEY": "x", "OPENAI_BASE_URL": f"{url}/v1", "OPENAI_MODEL": "m"}


def _vibe(home: Path, url: str) -> dict[str, str]:
    lines = [
        'active_model = "m"',
        "enable_telemetry = false",
        "enable_update_checks = false",
        "enable_auto_update = false",
        "[[providers]]",
        'name = "local"',
        f'api_base = "{url}/v1"',
        'api_key_env_var = "LOCAL_KEY"',
        "[[models]]",
        'name = "m"',
        'provider = "local"',
        'alias = "m"',
    ]
    _write(home / ".vibe" / "config.toml", "\n".join(lines) + "\n")
    return {"LOCAL_KEY": "x"}


def _codex(home: Path, url: str) -> dict[str, str]:
    lines = [
        'model = "gpt-5.5"',  # one that it knows, or each of its messages begins with a warning
        'model_provider = "local"',
        'approval_policy = "on-request"',
        'sandbox_mode = "workspace-write"',
        "check_for_update_on_startup = false",
        "[analytics]",
        "enabled = false",
        "[model_providers.local]",
        'name = "local"',
        f'base_url = "{url}/v1"',
        'wire_api = "responses"',
        'env_key = "LOCAL_KEY"',
    ]
    _write(home / ".codex" / "config.toml", "\n".join(lines) + "\n")
    return {"LOCAL_KEY": "x", "CODEX_HOME": str(home / ".codex"), "NO_BROWSER": "1"}


def _claude(home: Path, url: str) -> dict[str, str]:
    return {
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_API_KEY": "x",
        "ANTHROPIC_MODEL": "claude-sonnet-4-5",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
    }


def _gemini(home: Path, url: str) -> dict[str, str]:
    settings = {
        "security": {"auth": {"selectedType": "gemini-api-key"}, "folderTrust": {"enabled": False}},
        "privacy": {"usageStatisticsEnabled": False},
        "general": {"enableAutoUpdate": False},
    }
    _write(home / ".gemini" / "settings.json", json.dumps(settings))
    return {"GEMINI_API_KEY": "x", "GOOGLE_GEMINI_BASE_URL": url, "GEMINI_MODEL": "gemini-2.5-flash"}


SEATS: dict[str, Seat] = {
    "opencode": _opencode,
    "qwen": _qwen,
    "vibe": _vibe,
    "codex": _codex,
    "claude": _claude,
    "gemini": _gemini,
}
