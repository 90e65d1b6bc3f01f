/* units - see units.h. */
#include "config/units.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/always.h"

struct unit {
    const char *name;
    uint64_t factor;
};

static const struct unit durations[] = {
    {"", 1000},       {"ms", 1},          {"s", 1000},
    {"m", 60 * 1000}, {"h", 3600 * 1000}, {"d", 24 * 3600 * 1000},
};

/* Long names first where a name is printed: text_of() takes the first that fits. */
static const struct unit sizes[] = {
    {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"", 1},
    {"g", 1 << 30},   {"m", 1 << 20},   {"k", 1 << 10},   {"B", 1},
};

/* Reads "DIGITS[.DIGITS]" and gives what follows; false when there is none. */
static bool number_parse(struct span *s, double *value)
{
    double v = 0, place = 1;
    size_t i = 0, digits = 0;

    for (; i < s->n && s->p[i] >= '0' && s->p[i] <= '9'; i++, digits++)
        v = v * 10 + (s->p[i] - '0');
    if (digits == 0 || digits > 18)
        return false;
    if (i + 1 < s->n && s->p[i] == '.' && s->p[i + 1] >= '0' && s->p[i + 1] <= '9') {
        for (i++; i < s->n && s->p[i] >= '0' && s->p[i] <= '9'; i++, digits++) {
            place /= 10;
            v += (s->p[i] - '0') * place;
        }
        if (digits > 24)
            return false;
    }
    *s = span_of(s->p + i, s->n - i);
    *value = v;
    return true;
}

static bool quantity_parse(struct span s, const struct unit *units, size_t n, uint64_t *out)
{
    double v;

    if (!number_parse(&s, &v))
        return false;
    for (size_t i = 0; i < n; i++) {
        if (!span_eq_nocase(s, span_str(units[i].name)))
            continue;
        v *= (double)units[i].factor;
        /* Every whole number below 2^53 is exact in a double. */
        if (v > 9007199254740991.0)
            return false;
        *out = (uint64_t)(v + 0.5);
        return true;
    }
    return false;
}

bool duration_parse(struct span s, uint64_t *ms)
{
    return quantity_parse(s, durations, COUNT_OF(durations), ms);
}

bool size_parse(struct span s, uint64_t *bytes)
{
    return quantity_parse(s, sizes, COUNT_OF(sizes), bytes);
}

bool share_parse(struct span s, double *share)
{
    double v;

    if (!number_parse(&s, &v))
        return false;
    if (span_eq_str(s, "%"))
        v /= 100;
    else if (s.n)
        return false;
    *share = v;
    return true;
}

void duration_text(uint64_t ms, char out[UNITS_TEXT_MAX])
{
    static const struct unit printed[] = {{"h", 3600 * 1000}, {"m", 60 * 1000}, {"s", 1000}};

    for (size_t i = 0; i < COUNT_OF(printed); i++) {
        if (ms && ms % printed[i].factor == 0) {
            snprintf(out, UNITS_TEXT_MAX, "%" PRIu64 "%s", ms / printed[i].factor, printed[i].name);
            return;
        }
    }
    snprintf(out, UNITS_TEXT_MAX, "%" PRIu64 "%s", ms, ms ? "ms" : "s");
}

void size_text(uint64_t bytes, char out[UNITS_TEXT_MAX])
{
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        if (bytes % sizes[i].factor == 0 && (bytes || sizes[i].factor == 1)) {
            snprintf(out, UNITS_TEXT_MAX, "%" PRIu64 "%s", bytes / sizes[i].factor, sizes[i].name);
            return;
        }
    }
}

void share_text(double share, char out[UNITS_TEXT_MAX])
{
    snprintf(out, UNITS_TEXT_MAX, "%g%%", share * 100);
}
