/* prompt - see prompt.h. */
#include "translate/prompt.h"

#include "base/utf8.h"

static uint32_t decode(const char *text, size_t n)
{
    const unsigned char *p = (const unsigned char *)text;

    switch (n) {
    case 2:
        return (p[0] & 0x1fu) << 6 | (p[1] & 0x3fu);
    case 3:
        return (p[0] & 0x0fu) << 12 | (p[1] & 0x3fu) << 6 | (p[2] & 0x3fu);
    case 4:
        return (p[0] & 0x07u) << 18 | (p[1] & 0x3fu) << 12 | (p[2] & 0x3fu) << 6 | (p[3] & 0x3fu);
    default:
        return p[0];
    }
}

static bool is_han(uint32_t c)
{
    return (c >= 0x3400 && c <= 0x4dbf) || (c >= 0x4e00 && c <= 0x9fff) ||
           (c >= 0xf900 && c <= 0xfaff) || (c >= 0x20000 && c <= 0x323af);
}

static bool is_kana_or_hangul(uint32_t c)
{
    return (c >= 0x3041 && c <= 0x30ff) || (c >= 0x31f0 && c <= 0x31ff) ||
           (c >= 0xff66 && c <= 0xff9f) || (c >= 0x1100 && c <= 0x11ff) ||
           (c >= 0xac00 && c <= 0xd7a3);
}

bool prompt_looks_chinese(struct span text)
{
    bool han = false;

    for (size_t i = 0; i < text.n;) {
        size_t n = utf8_length(text.p + i, text.n - i);
        uint32_t c = n ? decode(text.p + i, n) : 0;
        if (is_kana_or_hangul(c))
            return false;
        han = han || is_han(c);
        i += n ? n : 1;
    }
    return han;
}

void prompt_translate(struct buf *out, const struct language *from, const struct language *to,
                      struct span text)
{
    bool chinese =
        language_is_chinese(to) || (from ? language_is_chinese(from) : prompt_looks_chinese(text));

    if (chinese)
        buf_addf(out, PROMPT_CHINESE, to->chinese);
    else
        buf_addf(out, PROMPT_ENGLISH, to->english);
    buf_add_span(out, text);
}
