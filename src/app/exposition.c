/* app/exposition - see exposition.h. */
#include "app/exposition.h"

#include <stdio.h>

enum { BUCKETS_OF_AN_OCTAVE = 4 };

/* A backslash, a line feed and, within a label, a quote are written with a backslash. */
static void add_escaped(struct buf *out, const char *text, bool label)
{
    for (; *text; text++) {
        if (*text == '\n')
            buf_add_str(out, "\\n");
        else if (*text == '\\' || (label && *text == '"'))
            buf_addf(out, "\\%c", *text);
        else
            buf_add_char(out, *text);
    }
}

void exposition_family(struct buf *out, const char *name, const char *type, const char *help)
{
    buf_addf(out, "# HELP %s ", name);
    add_escaped(out, help, false);
    buf_addf(out, "\n# TYPE %s %s\n", name, type);
}

static void add_label(struct buf *out, char before, const char *name, const char *value)
{
    buf_add_char(out, before);
    buf_add_str(out, name);
    buf_add_str(out, "=\"");
    add_escaped(out, value, true);
    buf_add_char(out, '"');
}

/* NAME SUFFIX {labels, le} and the blank. */
static void add_series(struct buf *out, const char *name, const char *suffix,
                       const struct label *labels, const char *le)
{
    char before = '{';

    buf_add_str(out, name);
    buf_add_str(out, suffix);
    for (; labels && labels->name; labels++) {
        add_label(out, before, labels->name, labels->value);
        before = ',';
    }
    if (le) {
        add_label(out, before, "le", le);
        before = ',';
    }
    buf_add_str(out, before == ',' ? "} " : " ");
}

void exposition_count(struct buf *out, const char *name, const struct label *labels, uint64_t n)
{
    add_series(out, name, "", labels, NULL);
    buf_add_u64(out, n);
    buf_add_char(out, '\n');
}

void exposition_number(struct buf *out, const char *name, const struct label *labels, double n)
{
    add_series(out, name, "", labels, NULL);
    buf_addf(out, "%.15g\n", n);
}

void exposition_durations(struct buf *out, const char *name, const struct label *labels,
                          const struct durations *d)
{
    uint64_t count = 0;
    char le[32] = "+Inf";

    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        count += d->buckets[i];
        bool last = i + 1 == HISTOGRAM_BUCKETS;
        bool octave = (i + 1) % BUCKETS_OF_AN_OCTAVE == 0;
        if (!last && !octave)
            continue;
        if (last)
            strcpy(le, "+Inf");
        else
            snprintf(le, sizeof(le), "%.9g", (double)histogram_bound_us(i) / 1e6);
        add_series(out, name, "_bucket", labels, le);
        buf_addf(out, "%llu\n", (unsigned long long)count);
    }
    add_series(out, name, "_sum", labels, NULL);
    buf_addf(out, "%.15g\n", (double)d->sum_us / 1e6);
    add_series(out, name, "_count", labels, NULL);
    buf_addf(out, "%llu\n", (unsigned long long)count);
}
