/*
 * gateway/sticky - see sticky.h.
 *
 * FNV-1a with the finaliser of MurmurHash3, so that every bit of the number
 * depends on every byte: the upper ones decide.
 */
#include "gateway/sticky.h"

static uint64_t mix(uint64_t h)
{
    h ^= h >> 33;
    h *= UINT64_C(0xff51afd7ed558ccd);
    h ^= h >> 33;
    h *= UINT64_C(0xc4ceb9fe1a85ec53);
    return h ^ h >> 33;
}

static uint64_t number(struct span s)
{
    uint64_t h = UINT64_C(14695981039346656037);

    for (size_t i = 0; i < s.n; i++)
        h = (h ^ (unsigned char)s.p[i]) * UINT64_C(1099511628211);
    h = mix(h);
    return h ? h : 1;
}

static bool space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

struct span sticky_first(struct span a)
{
    size_t i = 1, depth = 0;
    bool in_string = false;

    if (a.n < 2 || a.p[0] != '[')
        return span_of(NULL, 0);
    while (i < a.n && space(a.p[i]))
        i++;
    size_t begin = i;
    for (; i < a.n; i++) {
        char c = a.p[i];
        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            depth++;
        } else if (depth == 0 && (c == ',' || c == ']')) {
            break;
        } else if (c == '}' || c == ']') {
            depth--;
        }
    }
    while (i > begin && space(a.p[i - 1]))
        i--;
    return span_of(a.p + begin, i - begin);
}

uint64_t sticky_number(const struct sticky_source *s)
{
    struct span first = sticky_first(s->messages);

    if (s->header.n)
        return number(s->header);
    if (s->user.n > 2) /* not "" */
        return number(s->user);
    if (first.n)
        return number(first);
    return s->prompt.n ? number(s->prompt) : 0;
}
