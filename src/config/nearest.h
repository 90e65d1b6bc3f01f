/*
 * nearest - "did you mean": the known word that is closest to a mistyped one.
 */
#pragma once
#include <stddef.h>

/* Damerau-Levenshtein distance (optimal string alignment): insertions,
 * deletions, substitutions and swaps of neighbours, ASCII case ignored.  Words
 * longer than 64 bytes are as far away as they are long. */
unsigned nearest_distance(const char *a, const char *b);

/* The closest of `n` words if it is close enough to be what was meant (a third
 * of the longer word, at most two in short ones, none in the shortest), else NULL.  The first wins
 * a tie. */
const char *nearest_word(const char *word, const char *const *words, size_t n);
