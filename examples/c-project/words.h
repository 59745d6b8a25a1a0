/* Counts the words of its standard input, and draws how often each occurs. */
#ifndef WORDS_H
#define WORDS_H

#include <stddef.h>
#include <stdio.h>

enum { WORD_MAX = 63, TABLE_SIZE = 4096 };

struct entry {
    char word[WORD_MAX + 1];
    size_t count;
};

struct table {
    struct entry entries[TABLE_SIZE];
    size_t used;
};

/* text.c: the next word, in lower case; 0 at the end. */
int next_word(FILE *in, char word[WORD_MAX + 1]);

/* table.c: counts a word; 0 where the table is full. */
int count_word(struct table *table, const char *word);
void sort_table(struct table *table);

/* histogram.c: one line for each of the most frequent words. */
void draw_histogram(const struct table *table, size_t lines, FILE *out);

#endif
