#include "words.h"

#include <stdlib.h>

int main(void)
{
    struct table *table = calloc(1, sizeof *table);
    char word[WORD_MAX + 1];

    if (table == NULL) {
        perror("words");
        return 1;
    }
    while (next_word(stdin, word)) {
        if (!count_word(table, word)) {
            fprintf(stderr, "words: more than %d different words\n", TABLE_SIZE);
            free(table);
            return 2;
        }
    }
    sort_table(table);
    draw_histogram(table, 20, stdout);
    free(table);
    return 0;
}
