/*
 * chunk - see chunk.h.
 *
 *   SIZE [;extension] CRLF  data CRLF  ...  0 CRLF  trailer lines  CRLF
 *
 * Framing goes byte by byte through the states below; data is moved in whole
 * runs.  A state says what the next byte is part of.
 */
#include "http/chunk.h"

enum {
    SIZE_FIRST, /* first digit of a size */
    SIZE_MORE,  /* further digits, or the end of the size */
    SIZE_SPACE, /* white space before an extension's semicolon */
    EXTENSION,
    SIZE_LF,
    DATA,
    DATA_CR,
    DATA_LF,
    LINE_FIRST, /* first byte of a trailer line */
    NAME,
    VALUE,
    VALUE_LF,
    LAST_LF, /* of the empty line that ends the body */
    ENDED
};

/* -1 for other bytes. */
static int hex_digit(unsigned char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* RFC 9110 section 5.6.2. */
static bool is_token(unsigned char c)
{
    return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') ||
           (c && strchr("!#$%&'*+-.^_`|~", c));
}

static bool is_text(unsigned char c)
{
    return c == '\t' || (c >= 0x20 && c != 0x7f);
}

void chunk_decoder_init(struct chunk_decoder *d)
{
    *d = (struct chunk_decoder){.state = SIZE_FIRST};
}

/* One byte of a size line. */
static bool size_byte(struct chunk_decoder *d, unsigned char c)
{
    int digit = hex_digit(c);

    if (++d->line > CHUNK_LINE_MAX)
        return false;
    switch (d->state) {
    case SIZE_FIRST:
    case SIZE_MORE:
        if (digit >= 0) {
            if (d->left >> 60)
                return false;
            d->left = d->left << 4 | (unsigned)digit;
            d->state = SIZE_MORE;
            return true;
        }
        if (d->state == SIZE_FIRST)
            return false;
        d->state = c == ';' ? EXTENSION : c == '\r' ? SIZE_LF : SIZE_SPACE;
        return c == ';' || c == '\r' || c == ' ' || c == '\t';
    case SIZE_SPACE:
        if (c == ';')
            d->state = EXTENSION;
        return c == ';' || c == ' ' || c == '\t';
    case EXTENSION:
        if (c == '\r')
            d->state = SIZE_LF;
        return c == '\r' || is_text(c);
    default: /* SIZE_LF */
        d->state = d->left ? DATA : LINE_FIRST;
        d->line = 0;
        return c == '\n';
    }
}

/* One byte of the trailer section: field lines as in a head, and dropped. */
static bool trailer_byte(struct chunk_decoder *d, unsigned char c)
{
    if (++d->trailer > CHUNK_TRAILER_MAX)
        return false;
    switch (d->state) {
    case LINE_FIRST:
        d->state = c == '\r' ? LAST_LF : NAME;
        return c == '\r' || is_token(c);
    case NAME:
        if (c == ':')
            d->state = VALUE;
        return c == ':' || is_token(c);
    case VALUE:
        if (c == '\r')
            d->state = VALUE_LF;
        return c == '\r' || is_text(c);
    default: /* VALUE_LF, LAST_LF */
        d->state = d->state == LAST_LF ? ENDED : LINE_FIRST;
        return c == '\n';
    }
}

enum http_fault chunk_decode(struct chunk_decoder *d, char *p, size_t n, size_t *data_len,
                             size_t *used, bool *done)
{
    size_t in = 0, out = 0;
    enum http_fault fault = HTTP_FAULT_NONE;

    while (in < n && d->state != ENDED && fault == HTTP_FAULT_NONE) {
        if (d->state == DATA) {
            size_t run = n - in < d->left ? n - in : (size_t)d->left;
            if (in != out)
                memmove(p + out, p + in, run);
            in += run;
            out += run;
            d->left -= run;
            if (d->left == 0)
                d->state = DATA_CR;
        } else if (d->state == DATA_CR || d->state == DATA_LF) {
            if (p[in++] != (d->state == DATA_CR ? '\r' : '\n'))
                fault = HTTP_FAULT_BAD_CHUNK;
            d->state = d->state == DATA_CR ? DATA_LF : SIZE_FIRST;
        } else if (d->state < DATA) {
            if (!size_byte(d, (unsigned char)p[in++]))
                fault = HTTP_FAULT_BAD_CHUNK;
        } else if (!trailer_byte(d, (unsigned char)p[in++])) {
            fault = HTTP_FAULT_BAD_TRAILER;
        }
    }
    *data_len = out;
    *used = in;
    *done = d->state == ENDED && fault == HTTP_FAULT_NONE;
    return fault;
}

size_t chunk_size_line(char *end, size_t size)
{
    static const char digits[] = "0123456789abcdef";
    char *p = end;

    *--p = '\n';
    *--p = '\r';
    do {
        *--p = digits[size & 15];
        size >>= 4;
    } while (size);
    return (size_t)(end - p);
}
