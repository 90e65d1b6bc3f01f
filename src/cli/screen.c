/* screen - see screen.h. */
#include "cli/screen.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/utf8.h"

bool screen_is_terminal(FILE *out)
{
    return isatty(fileno(out));
}

bool screen_has_colour(FILE *out)
{
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");

    return screen_is_terminal(out) && !(no && *no) && !(term && strcmp(term, "dumb") == 0);
}

void ink_add(struct buf *out, enum ink ink, bool colour, const char *text)
{
    static const char *const sgr[] = {
#define X(id, code) code,
        INKS(X)
#undef X
    };

    if (colour && ink)
        buf_addf(out, "\033[%sm", sgr[ink]);
    for (; *text; text++)
        buf_add_char(out, (unsigned char)*text < 0x20 || *text == 0x7f ? '?' : *text);
    if (colour && ink)
        buf_add_str(out, "\033[0m");
}

struct range {
    uint32_t first, last;
};

/* Blocks of combining and other zero-width characters that names can have. */
static const struct range zero[] = {
    {0x0300, 0x036f}, {0x0483, 0x0489}, {0x0591, 0x05bd}, {0x0610, 0x061a}, {0x064b, 0x065f},
    {0x0900, 0x0902}, {0x093c, 0x093c}, {0x0941, 0x0948}, {0x094d, 0x094d}, {0x0e31, 0x0e31},
    {0x0e34, 0x0e3a}, {0x0e47, 0x0e4e}, {0x0f71, 0x0f7e}, {0x1ab0, 0x1aff}, {0x1dc0, 0x1dff},
    {0x200b, 0x200f}, {0x20d0, 0x20ff}, {0x302a, 0x302d}, {0xfe00, 0xfe0f}, {0xfe20, 0xfe2f},
    {0xfeff, 0xfeff},
};

/* East Asian wide and fullwidth (Unicode UAX #11), and emoji. */
static const struct range wide[] = {
    {0x1100, 0x115f},   {0x2e80, 0x303e},   {0x3041, 0x33ff},   {0x3400, 0x4dbf},
    {0x4e00, 0x9fff},   {0xa000, 0xa4cf},   {0xa960, 0xa97f},   {0xac00, 0xd7a3},
    {0xf900, 0xfaff},   {0xfe30, 0xfe6f},   {0xff00, 0xff60},   {0xffe0, 0xffe6},
    {0x1f300, 0x1f64f}, {0x1f680, 0x1f6ff}, {0x1f900, 0x1f9ff}, {0x20000, 0x3fffd},
};

static bool within(uint32_t c, const struct range *ranges, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (c >= ranges[i].first && c <= ranges[i].last)
            return true;
    return false;
}

static uint32_t code_point(const unsigned char *p, size_t n)
{
    uint32_t c = n == 1 ? p[0] : n == 2 ? p[0] & 0x1fu : n == 3 ? p[0] & 0x0fu : p[0] & 0x07u;

    for (size_t i = 1; i < n; i++)
        c = c << 6 | (p[i] & 0x3fu);
    return c;
}

/* Columns of the character at *i, which is moved past it. */
static size_t next_width(const char *text, size_t len, size_t *i)
{
    size_t n = utf8_length(text + *i, len - *i);
    uint32_t c = n ? code_point((const unsigned char *)text + *i, n) : 0xfffd;

    *i += n ? n : 1;
    return within(c, zero, COUNT_OF(zero)) ? 0 : within(c, wide, COUNT_OF(wide)) ? 2 : 1;
}

size_t text_width(const char *text)
{
    size_t width = 0, len = strlen(text);

    for (size_t i = 0; i < len;)
        width += next_width(text, len, &i);
    return width;
}

size_t text_fit(const char *text, size_t columns)
{
    size_t width = 0, len = strlen(text), fit = 0;

    while (fit < len) {
        size_t i = fit;
        width += next_width(text, len, &i);
        if (width > columns)
            break;
        fit = i;
    }
    return fit;
}

size_t screen_columns(FILE *out)
{
    struct winsize size;

    return ioctl(fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col ? size.ws_col : 80;
}

/* --- tables ----------------------------------------------------------- */

struct cell {
    char *text; /* owned */
    enum ink ink;
};

struct table {
    const char *const *heads; /* borrowed */
    size_t ncolumns;
    struct cell *cells; /* owned; row after row */
    size_t ncells;
};

struct table *table_new(const char *const *heads)
{
    struct table *t = NEW(struct table);

    t->heads = heads;
    while (heads[t->ncolumns])
        t->ncolumns++;
    return t;
}

void table_cell(struct table *t, enum ink ink, const char *fmt, ...)
{
    struct buf text = {0};
    va_list args, again;

    va_start(args, fmt);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    ALWAYS(n >= 0);
    vsnprintf(buf_room(&text, (size_t)n + 1), (size_t)n + 1, fmt, again);
    va_end(again);
    buf_added(&text, (size_t)n);
    t->cells = mem_grow(t->cells, (t->ncells + 1) * sizeof(*t->cells));
    t->cells[t->ncells++] = (struct cell){buf_take(&text), ink};
}

static void add_spaces(struct buf *out, size_t n)
{
    while (n--)
        buf_add_char(out, ' ');
}

/* One cell; the last column gets no spaces after it. */
static void add_cell(struct buf *out, const char *text, enum ink ink, bool colour, bool right,
                     size_t width, bool last)
{
    size_t gap = width - text_width(text);

    if (right)
        add_spaces(out, gap);
    ink_add(out, ink, colour, text);
    if (!right && !last)
        add_spaces(out, gap);
    buf_add_str(out, last ? "\n" : "  ");
}

void table_print(struct table *t, FILE *out)
{
    bool colour = screen_has_colour(out);
    size_t *widths = mem_zero(t->ncolumns * sizeof(*widths));
    struct buf text = {0};

    ALWAYS(t->ncells % t->ncolumns == 0);
    for (size_t i = 0; i < t->ncolumns; i++)
        widths[i] = text_width(t->heads[i] + (t->heads[i][0] == '>'));
    for (size_t i = 0; i < t->ncells; i++) {
        size_t w = text_width(t->cells[i].text);
        if (w > widths[i % t->ncolumns])
            widths[i % t->ncolumns] = w;
    }
    for (size_t i = 0; i < t->ncolumns; i++) {
        bool right = t->heads[i][0] == '>';
        add_cell(&text, t->heads[i] + right, INK_DIM, colour, right, widths[i],
                 i + 1 == t->ncolumns);
    }
    for (size_t i = 0; i < t->ncells; i++) {
        size_t column = i % t->ncolumns;
        add_cell(&text, t->cells[i].text, t->cells[i].ink, colour, t->heads[column][0] == '>',
                 widths[column], column + 1 == t->ncolumns);
        free(t->cells[i].text);
    }
    fwrite(buf_head(&text), 1, buf_pending(&text), out);
    buf_fini(&text);
    free(widths);
    free(t->cells);
    free(t);
}

/* --- numbers ---------------------------------------------------------- */

const char *number_text(int64_t n, char out[NUMBER_TEXT_MAX])
{
    char digits[24];
    uint64_t size = n < 0 ? 0 - (uint64_t)n : (uint64_t)n;
    int len = snprintf(digits, sizeof(digits), "%" PRIu64, size), at = 0;

    if (n < 0)
        out[at++] = '-';
    for (int i = 0; i < len; i++) {
        if (i && (len - i) % 3 == 0)
            out[at++] = ',';
        out[at++] = digits[i];
    }
    out[at] = '\0';
    return out;
}

const char *time_text(double seconds, char out[NUMBER_TEXT_MAX])
{
    int64_t whole = (int64_t)seconds;

    if (seconds < 0.001)
        snprintf(out, NUMBER_TEXT_MAX, "%.0f us", seconds * 1e6);
    else if (seconds < 1)
        snprintf(out, NUMBER_TEXT_MAX, "%.*f ms", seconds < 0.01 ? 1 : 0, seconds * 1e3);
    else if (seconds < 60)
        snprintf(out, NUMBER_TEXT_MAX, "%.1f s", seconds);
    else if (whole < 3600)
        snprintf(out, NUMBER_TEXT_MAX, "%" PRId64 " min %" PRId64 " s", whole / 60, whole % 60);
    else if (whole < 86400)
        snprintf(out, NUMBER_TEXT_MAX, "%" PRId64 " h %" PRId64 " min", whole / 3600,
                 whole / 60 % 60);
    else
        snprintf(out, NUMBER_TEXT_MAX, "%" PRId64 " d %" PRId64 " h", whole / 86400,
                 whole / 3600 % 24);
    return out;
}

const char *bytes_text(int64_t n, char out[NUMBER_TEXT_MAX])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double v = (double)n;
    size_t u = 0;

    while (v >= 1024 && u + 1 < COUNT_OF(units)) {
        v /= 1024;
        u++;
    }
    snprintf(out, NUMBER_TEXT_MAX, "%.*f %s", u ? 1 : 0, v, units[u]);
    return out;
}
