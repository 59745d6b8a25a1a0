#include "words.h"

#include <ctype.h>

int next_word(FILE *in, char word[WORD_MAX + 1])
{
    size_t length = 0;
    int c;

    while ((c = getc(in)) != EOF) {
        if (isalpha(c)) {
            if (length < WORD_MAX)
                word[length++] = (char)tolower(c);
        } else if (length > 0) {
            break;
        }
    }
    word[length] = '\0';
    return length > 0;
}
