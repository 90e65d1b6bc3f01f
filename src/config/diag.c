/* diag - see diag.h. */
#include "config/diag.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/utf8.h"

static void add(struct diags *d, bool warning, unsigned line, unsigned column, const char *fmt,
                va_list args)
{
    char text[1024];
    int n = vsnprintf(text, sizeof(text), fmt, args);
    size_t whole = n < 0 ? 0 : (size_t)n < sizeof(text) ? (size_t)n : sizeof(text) - 1;

    text[utf8_whole(text, whole)] = '\0';
    d->items = mem_grow(d->items, (d->n + 1) * sizeof(*d->items));
    d->items[d->n++] = (struct diag){line, column, warning, str_dup(text)};
    d->errors += !warning;
}

void diag_error(struct diags *d, unsigned line, unsigned column, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    add(d, false, line, column, fmt, args);
    va_end(args);
}

void diag_warning(struct diags *d, unsigned line, unsigned column, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    add(d, true, line, column, fmt, args);
    va_end(args);
}

/* Moves each item to its place from the end: equal positions keep their order,
 * and what was read in order costs one comparison. */
static void sort(struct diags *d)
{
    for (size_t i = 1; i < d->n; i++) {
        struct diag it = d->items[i];
        size_t j = i;
        while (j && (d->items[j - 1].line > it.line ||
                     (d->items[j - 1].line == it.line && d->items[j - 1].column > it.column))) {
            d->items[j] = d->items[j - 1];
            j--;
        }
        d->items[j] = it;
    }
}

static void add_harmless(struct buf *out, const char *s)
{
    for (; *s; s++)
        buf_add_char(out, (unsigned char)*s < 0x20 || *s == 0x7f ? '?' : *s);
}

void diags_print(struct diags *d, struct buf *out)
{
    sort(d);
    for (size_t i = 0; i < d->n && i < DIAGS_SHOWN_MAX; i++) {
        const struct diag *it = &d->items[i];
        add_harmless(out, d->name);
        if (it->line)
            buf_addf(out, ":%u:%u", it->line, it->column);
        buf_addf(out, ": %s: ", it->warning ? "warning" : "error");
        add_harmless(out, it->text);
        buf_add_char(out, '\n');
    }
    if (d->n > DIAGS_SHOWN_MAX) {
        add_harmless(out, d->name);
        buf_addf(out, ": error: and %zu more\n", d->n - DIAGS_SHOWN_MAX);
    }
}

void diags_fini(struct diags *d)
{
    for (size_t i = 0; i < d->n; i++)
        free(d->items[i].text);
    free(d->items);
    *d = (struct diags){0};
}
