/*
 * screen - text for people: colours, widths, aligned tables, numbers.
 *
 * Colour only on a terminal, and not when NO_COLOR is set.  Widths are counted
 * in columns: a Chinese character takes two, a combining one none.
 */
#pragma once
#include <stdio.h>

#include "base/buf.h"

/*         id       SGR */
#define INKS(X)     \
    X(PLAIN, "")    \
    X(BOLD, "1")    \
    X(DIM, "2")     \
    X(RED, "31")    \
    X(GREEN, "32")  \
    X(YELLOW, "33") \
    X(CYAN, "36")

enum ink {
#define X(id, sgr) INK_##id,
    INKS(X)
#undef X
};

bool screen_is_terminal(FILE *out);
bool screen_has_colour(FILE *out);

/* Appends text in a colour, if there is colour; control bytes become '?'. */
void ink_add(struct buf *out, enum ink ink, bool colour, const char *text);

/* Columns of a terminal; 80 when it does not say. */
size_t screen_columns(FILE *out);

/* Columns that a UTF-8 text takes. */
size_t text_width(const char *text);

/* How many bytes of the text fit into so many columns. */
size_t text_fit(const char *text, size_t columns);

struct table; /* rows of cells, column widths from the widest */

/* `heads` is NULL-terminated and borrowed; one that begins with '>' is aligned right. */
struct table *table_new(const char *const *heads);
void table_cell(struct table *t, enum ink ink, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* Prints and frees it. */
void table_print(struct table *t, FILE *out);

enum { NUMBER_TEXT_MAX = 48 };

/* "1,234,567" */
const char *number_text(int64_t n, char out[NUMBER_TEXT_MAX]);
/* "412 us", "95 ms", "3.2 s", "4 min 10 s", "2 h 5 min", "3 d 4 h" */
const char *time_text(double seconds, char out[NUMBER_TEXT_MAX]);
/* "54.3 MiB" */
const char *bytes_text(int64_t n, char out[NUMBER_TEXT_MAX]);
