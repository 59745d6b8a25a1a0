#include "words.h"

#include <stdlib.h>
#include <string.h>

static size_t hash(const char *word)
{
    size_t value = 5381;

    while (*word)
        value = value * 33 + (unsigned char)*word++;
    return value % TABLE_SIZE;
}

int count_word(struct table *table, const char *word)
{
    size_t place = hash(word);

    for (size_t tried = 0; tried < TABLE_SIZE; tried++, place = (place + 1) % TABLE_SIZE) {
        struct entry *entry = &table->entries[place];

        if (entry->count == 0) {
            strcpy(entry->word, word);
            table->used++;
        } else if (strcmp(entry->word, word) != 0) {
            continue;
        }
        entry->count++;
        return 1;
    }
    return 0;
}

static int by_count(const void *left, const void *right)
{
    const struct entry *a = left, *b = right;

    if (a->count != b->count)
        return a->count < b->count ? 1 : -1;
    return strcmp(a->word, b->word);
}

void sort_table(struct table *table)
{
    qsort(table->entries, TABLE_SIZE, sizeof table->entries[0], by_count);
}
