#include "words.h"

enum { WIDTH = 40 };

void draw_histogram(const struct table *table, size_t lines, FILE *out)
{
    size_t most = table->used > 0 ? table->entries[0].count : 1;

    for (size_t n = 0; n < lines && n < table->used; n++) {
        const struct entry *entry = &table->entries[n];
        size_t bar = 1 + entry->count * (WIDTH - 1) / most;

        fprintf(out, "%-16s %6zu ", entry->word, entry->count);
        while (bar-- > 0)
            putc('#', out);
        putc('\n', out);
    }
}
