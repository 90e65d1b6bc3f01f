/* tail - see tail.h. */
#include "engine/tail.h"

#include "base/utf8.h"

void tail_fini(struct tail *t)
{
    buf_fini(&t->held);
}

/*
 * Offset of the stop string that is complete first, or s.n.  Of two that overlap the one
 * that ends first counts, as if bytes came one by one: the result must not depend on
 * how tokens cut the text.
 */
static size_t first_stop(const struct stops *stops, struct span s)
{
    size_t begin = s.n, end = s.n + 1;

    for (size_t i = 0; i < stops->n; i++) {
        const char *hit = s.n ? memmem(s.p, s.n, stops->s[i].p, stops->s[i].n) : NULL;
        if (!hit)
            continue;
        size_t at = (size_t)(hit - s.p), done = at + stops->s[i].n;
        if (done < end || (done == end && at < begin)) {
            begin = at;
            end = done;
        }
    }
    return begin;
}

/* Length of the longest end of s with which a stop string begins. */
static size_t begun_stop(const struct stops *stops, struct span s)
{
    size_t longest = 0;

    for (size_t i = 0; i < stops->n; i++) {
        size_t n = stops->s[i].n - 1 < s.n ? stops->s[i].n - 1 : s.n;
        while (n > longest && memcmp(s.p + s.n - n, stops->s[i].p, n) != 0)
            n--;
        if (n > longest)
            longest = n;
    }
    return longest;
}

bool tail_add(struct tail *t, struct span bytes, struct buf *out)
{
    buf_add_span(&t->held, bytes);
    struct span s = buf_span(&t->held);
    size_t stop = first_stop(t->stops, s);
    if (stop < s.n) {
        buf_add(out, s.p, stop);
        buf_clear(&t->held);
        return true;
    }
    size_t go = s.n - begun_stop(t->stops, s);
    go = utf8_whole(s.p, go);
    buf_add(out, s.p, go);
    buf_consume(&t->held, go);
    return false;
}

void tail_flush(struct tail *t, struct buf *out)
{
    struct span s = buf_span(&t->held);

    buf_add(out, s.p, utf8_whole(s.p, s.n));
    buf_clear(&t->held);
}
