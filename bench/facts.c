/*
 * facts - a recursive descent over one JSON object.
 *
 * Each value is read "as" something: the place in the answer where it stands
 * decides which of its members are looked at.  Places that do not matter are
 * read for their syntax only.
 */
#include "facts.h"

#include "base/utf8.h"

enum { DEPTH_MAX = 64 };

enum place { ROOT, CHOICES, CHOICE, MESSAGE, OTHER };

struct reader {
    const char *p, *end; /* borrowed */
    struct facts *facts; /* borrowed */
    int depth;
};

static bool read_value(struct reader *r, enum place as);

static void skip_space(struct reader *r)
{
    while (r->p < r->end && (*r->p == ' ' || *r->p == '\n' || *r->p == '\r' || *r->p == '\t'))
        r->p++;
}

static bool take(struct reader *r, char c)
{
    skip_space(r);
    if (r->p == r->end || *r->p != c)
        return false;
    r->p++;
    return true;
}

static bool is_hex(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static bool read_escape(struct reader *r)
{
    if (r->p == r->end)
        return false;
    char c = *r->p++;
    if (c != 'u')
        return c && strchr("\"\\/bfnrt", c);
    for (int i = 0; i < 4; i++, r->p++)
        if (r->p == r->end || !is_hex(*r->p))
            return false;
    return true;
}

/* A string; *inside gets what stands between its quotes. */
static bool read_string(struct reader *r, struct span *inside)
{
    if (!take(r, '"'))
        return false;

    const char *from = r->p;
    while (r->p < r->end) {
        unsigned char c = (unsigned char)*r->p++;
        if (c == '"') {
            *inside = span_of(from, (size_t)(r->p - 1 - from));
            return true;
        }
        if (c < 0x20 || (c == '\\' && !read_escape(r)))
            return false;
    }
    return false;
}

static bool read_digits(struct reader *r)
{
    const char *from = r->p;
    while (r->p < r->end && *r->p >= '0' && *r->p <= '9')
        r->p++;
    return r->p > from;
}

static bool read_number(struct reader *r)
{
    if (r->p < r->end && *r->p == '-')
        r->p++;
    if (r->p < r->end && *r->p == '0')
        r->p++;
    else if (!read_digits(r))
        return false;
    if (r->p < r->end && *r->p == '.') {
        r->p++;
        if (!read_digits(r))
            return false;
    }
    if (r->p < r->end && (*r->p == 'e' || *r->p == 'E')) {
        r->p++;
        if (r->p < r->end && (*r->p == '+' || *r->p == '-'))
            r->p++;
        return read_digits(r);
    }
    return true;
}

static bool read_word(struct reader *r, const char *word)
{
    size_t n = strlen(word);
    if ((size_t)(r->end - r->p) < n || memcmp(r->p, word, n) != 0)
        return false;
    r->p += n;
    return true;
}

/* Where a string member of this name, in this place, is kept; NULL: nowhere. */
static struct span *slot_of(struct reader *r, enum place in, struct span name)
{
    if (in == ROOT && span_eq(name, SPAN_LIT("model")))
        return &r->facts->model;
    if (in == CHOICE && span_eq(name, SPAN_LIT("finish_reason")))
        return &r->facts->finish;
    if ((in == CHOICE && span_eq(name, SPAN_LIT("text"))) ||
        (in == MESSAGE && span_eq(name, SPAN_LIT("content"))))
        return &r->facts->text;
    return NULL;
}

static enum place place_of(enum place in, struct span name)
{
    if (in == ROOT && span_eq(name, SPAN_LIT("choices")))
        return CHOICES;
    if (in == CHOICE && (span_eq(name, SPAN_LIT("message")) || span_eq(name, SPAN_LIT("delta"))))
        return MESSAGE;
    return OTHER;
}

static bool read_member(struct reader *r, enum place in)
{
    struct span name;
    if (!read_string(r, &name) || !take(r, ':'))
        return false;
    skip_space(r);

    struct span *slot = slot_of(r, in, name);
    if (slot && r->p < r->end && *r->p == '"')
        return read_string(r, slot);
    if (in == ROOT && span_eq(name, SPAN_LIT("error")))
        r->facts->error = r->p < r->end && *r->p != 'n';
    return read_value(r, place_of(in, name));
}

static bool read_object(struct reader *r, enum place in)
{
    if (take(r, '}'))
        return true;
    do {
        if (!read_member(r, in))
            return false;
    } while (take(r, ','));
    return take(r, '}');
}

static bool read_array(struct reader *r, enum place in)
{
    if (take(r, ']'))
        return true;
    for (size_t i = 0;; i++) {
        bool choice = in == CHOICES && i == 0;
        if (choice)
            r->facts->has_choice = true;
        if (!read_value(r, choice ? CHOICE : OTHER))
            return false;
        if (!take(r, ','))
            return take(r, ']');
    }
}

static bool read_value(struct reader *r, enum place as)
{
    struct span ignored;

    skip_space(r);
    if (r->p == r->end)
        return false;
    switch (*r->p) {
    case '{':
    case '[': {
        if (++r->depth > DEPTH_MAX)
            return false;
        bool good = *r->p++ == '{' ? read_object(r, as) : read_array(r, as);
        r->depth--;
        return good;
    }
    case '"':
        return read_string(r, &ignored);
    case 't':
        return read_word(r, "true");
    case 'f':
        return read_word(r, "false");
    case 'n':
        return read_word(r, "null");
    default:
        return read_number(r);
    }
}

int facts_read(struct span json, struct facts *out)
{
    struct reader r = {.p = json.p, .end = json.p + json.n, .facts = out};

    *out = (struct facts){0};
    skip_space(&r);
    if (r.p == r.end || *r.p != '{' || !read_value(&r, ROOT))
        return -1;
    skip_space(&r);
    return r.p == r.end && utf8_valid(json.p, json.n) ? 0 : -1;
}

static unsigned hex4(const char *p)
{
    unsigned v = 0;
    for (int i = 0; i < 4; i++)
        v = v * 16 + (unsigned)(p[i] <= '9' ? p[i] - '0' : (p[i] | 32) - 'a' + 10);
    return v;
}

static void add_utf8(struct buf *out, unsigned c)
{
    if (c < 0x80) {
        buf_add_char(out, (char)c);
    } else if (c < 0x800) {
        buf_add_char(out, (char)(0xc0 | c >> 6));
        buf_add_char(out, (char)(0x80 | (c & 63)));
    } else if (c < 0x10000) {
        buf_add_char(out, (char)(0xe0 | c >> 12));
        buf_add_char(out, (char)(0x80 | (c >> 6 & 63)));
        buf_add_char(out, (char)(0x80 | (c & 63)));
    } else {
        buf_add_char(out, (char)(0xf0 | c >> 18));
        buf_add_char(out, (char)(0x80 | (c >> 12 & 63)));
        buf_add_char(out, (char)(0x80 | (c >> 6 & 63)));
        buf_add_char(out, (char)(0x80 | (c & 63)));
    }
}

/* \uXXXX, with its second half when it is a surrogate pair; returns the bytes after "\u". */
static size_t add_unicode(struct buf *out, struct span s, size_t at)
{
    unsigned c = hex4(s.p + at);

    if (c >= 0xd800 && c < 0xdc00 && at + 10 <= s.n && s.p[at + 4] == '\\' && s.p[at + 5] == 'u') {
        unsigned low = hex4(s.p + at + 6);
        if (low >= 0xdc00 && low < 0xe000) {
            add_utf8(out, 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00));
            return 10;
        }
    }
    add_utf8(out, c >= 0xd800 && c < 0xe000 ? 0xfffd : c);
    return 4;
}

void facts_unescape(struct buf *out, struct span raw)
{
    static const char from[] = "bfnrt", to[] = "\b\f\n\r\t";

    for (size_t i = 0; i < raw.n; i++) {
        if (raw.p[i] != '\\') {
            buf_add_char(out, raw.p[i]);
            continue;
        }
        char c = raw.p[++i];
        const char *known = strchr(from, c);
        if (c == 'u')
            i += add_unicode(out, raw, i + 1);
        else
            buf_add_char(out, known ? to[known - from] : c);
    }
}

int facts_recall(struct facts_memory *m, struct span json, struct facts *out)
{
    if (json.n == 0)
        return -1;
    if (m->n == json.n && memcmp(m->text, json.p, json.n) == 0) {
        *out = m->facts;
        return 0;
    }
    if (json.n > sizeof(m->text))
        return facts_read(json, out);

    memcpy(m->text, json.p, json.n);
    m->n = json.n;
    if (facts_read(span_of(m->text, m->n), &m->facts) < 0) {
        m->n = 0;
        return -1;
    }
    *out = m->facts;
    return 0;
}
