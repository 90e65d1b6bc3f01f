/* utf8 - see utf8.h. */
#include "base/utf8.h"

/* How many bytes the character with this first byte has; 0 for a byte that
 * cannot be first. */
static size_t wanted(unsigned char c)
{
    return c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;
}

/* Whether the second byte is allowed after this first one (RFC 3629 section 4). */
static bool second_ok(unsigned char c, unsigned char d)
{
    unsigned char low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
    unsigned char high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;

    return d >= low && d <= high;
}

size_t utf8_length(const char *text, size_t n)
{
    const unsigned char *p = (const unsigned char *)text;
    size_t want = n ? wanted(p[0]) : 0;

    if (want == 0 || want > n)
        return 0;
    if (want > 1 && !second_ok(p[0], p[1]))
        return 0;
    for (size_t i = 2; i < want; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    return want;
}

bool utf8_valid(const char *p, size_t n)
{
    for (size_t i = 0; i < n;) {
        size_t len = utf8_length(p + i, n - i);
        if (len == 0)
            return false;
        i += len;
    }
    return true;
}

size_t utf8_whole(const char *text, size_t n)
{
    const unsigned char *p = (const unsigned char *)text;

    for (size_t back = 1; back <= 3 && back <= n; back++) {
        unsigned char c = p[n - back];
        if ((c & 0xc0) == 0x80)
            continue;
        size_t want = wanted(c);
        bool begun = want > back && (back == 1 || second_ok(c, p[n - back + 1]));
        return begun ? n - back : n;
    }
    return n;
}
