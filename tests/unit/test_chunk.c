/*
 * Chunked bodies: whole, in random pieces, cut at every byte, and refused.
 */
#include "http/chunk.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/buf.h"
#include "test.h"

static const char sample[] = "5\r\nhello\r\n"
                             "00001;ext=\"quoted; text\"\r\n \r\n"
                             "1A \t;x\r\nabcdefghijklmnopqrstuvwxyz\r\n"
                             "000\r\nTrailer: of no interest\r\nEmpty:\r\n\r\n";
static const char decoded[] = "hello abcdefghijklmnopqrstuvwxyz";

/* Decodes n bytes in random pieces (seed 0: one byte each);
 * says how many bytes were used. */
static enum http_fault decode(const char *text, size_t n, unsigned seed, struct buf *out,
                              size_t *used, bool *done)
{
    struct chunk_decoder d;
    enum http_fault fault = HTTP_FAULT_NONE;

    chunk_decoder_init(&d);
    *used = 0;
    *done = false;
    while (*used < n && !*done && fault == HTTP_FAULT_NONE) {
        size_t piece = seed ? 1 + (size_t)rand_r(&seed) % 9 : 1, len, took;
        if (piece > n - *used)
            piece = n - *used;
        char *copy = malloc(piece);
        memcpy(copy, text + *used, piece);
        fault = chunk_decode(&d, copy, piece, &len, &took, done);
        assert_true(len <= took && took <= piece);
        if (fault == HTTP_FAULT_NONE && !*done)
            assert_int_equal(took, piece);
        buf_add(out, copy, len);
        *used += took;
        free(copy);
    }
    return fault;
}

static void whole(void **state)
{
    struct chunk_decoder d;
    char text[sizeof(sample) + 10];
    size_t len, used;
    bool done;

    chunk_decoder_init(&d);
    size_t n = (size_t)sprintf(text, "%sGET /next", sample);
    assert_int_equal(chunk_decode(&d, text, n, &len, &used, &done), HTTP_FAULT_NONE);
    assert_true(done);
    assert_int_equal(used, sizeof(sample) - 1);
    assert_span(span_of(text, len), decoded);
    /* Behind the end nothing is taken. */
    assert_int_equal(chunk_decode(&d, text, 5, &len, &used, &done), HTTP_FAULT_NONE);
    assert_true(done && len == 0 && used == 0);
}

static void in_pieces(void **state)
{
    struct buf out = {0};
    size_t used;
    bool done;

    for (unsigned seed = 0; seed < 500; seed++) {
        buf_clear(&out);
        assert_int_equal(decode(sample, sizeof(sample) - 1, seed, &out, &used, &done),
                         HTTP_FAULT_NONE);
        assert_true(done);
        assert_int_equal(used, sizeof(sample) - 1);
        assert_span(buf_span(&out), decoded);
    }
    buf_fini(&out);
}

/* Cut anywhere, it has not ended and is not refused. */
static void cut_at_every_byte(void **state)
{
    struct buf out = {0};
    size_t used;
    bool done;

    for (size_t n = 0; n < sizeof(sample) - 1; n++) {
        buf_clear(&out);
        assert_int_equal(decode(sample, n, 1, &out, &used, &done), HTTP_FAULT_NONE);
        assert_false(done);
        assert_int_equal(used, n);
        assert_true(span_starts(SPAN_LIT(decoded), buf_span(&out)));
    }
    buf_fini(&out);
}

static void refused(void **state)
{
    static const struct {
        const char *text;
        enum http_fault fault;
    } cases[] = {
        {"\r\n", HTTP_FAULT_BAD_CHUNK},
        {"g\r\n", HTTP_FAULT_BAD_CHUNK},
        {"-1\r\n", HTTP_FAULT_BAD_CHUNK},
        {"+1\r\n", HTTP_FAULT_BAD_CHUNK},
        {" 1\r\n", HTTP_FAULT_BAD_CHUNK},
        {"0x1\r\n", HTTP_FAULT_BAD_CHUNK},
        {"1 \r\nx\r\n", HTTP_FAULT_BAD_CHUNK},
        {"1 1\r\n", HTTP_FAULT_BAD_CHUNK},
        {"1\nx", HTTP_FAULT_BAD_CHUNK},
        {"1\r\rx", HTTP_FAULT_BAD_CHUNK},
        {"1;a\nx", HTTP_FAULT_BAD_CHUNK},
        {"1;a\x01", HTTP_FAULT_BAD_CHUNK},
        {"1\r\nxx\r\n", HTTP_FAULT_BAD_CHUNK},
        {"1\r\nx\n", HTTP_FAULT_BAD_CHUNK},
        {"1\r\nx\rx", HTTP_FAULT_BAD_CHUNK},
        {"10000000000000000\r\n", HTTP_FAULT_BAD_CHUNK},
        {"fffffffffffffffff\r\n", HTTP_FAULT_BAD_CHUNK},
        {"0\r\nX\r\n", HTTP_FAULT_BAD_TRAILER},
        {"0\r\nX y: z\r\n", HTTP_FAULT_BAD_TRAILER},
        {"0\r\n: z\r\n", HTTP_FAULT_BAD_TRAILER},
        {"0\r\nX: a\nb", HTTP_FAULT_BAD_TRAILER},
        {"0\r\nX: a\r\n b\r\n", HTTP_FAULT_BAD_TRAILER},
        {"0\r\nX: a\x7f\r\n", HTTP_FAULT_BAD_TRAILER},
        {"0\r\n\rx", HTTP_FAULT_BAD_TRAILER},
        {"0\r\n\nx", HTTP_FAULT_BAD_TRAILER},
        {"ffffffffffffffff\r\nx", HTTP_FAULT_NONE},
    };
    struct buf out = {0};
    size_t used;
    bool done;

    for (size_t i = 0; i < COUNT_OF(cases); i++)
        for (unsigned seed = 0; seed < 20; seed++)
            if (decode(cases[i].text, strlen(cases[i].text), seed, &out, &used, &done) !=
                cases[i].fault)
                fail_msg("case %zu: %s", i, cases[i].text);
    buf_fini(&out);
}

static void bounds(void **state)
{
    struct buf text = {0}, out = {0};
    size_t used;
    bool done;

    /* A size line of exactly the limit, and one byte more. */
    for (int more = 0; more <= 1; more++) {
        buf_clear(&text);
        buf_addf(&text, "1;%0*d\r\nx\r\n0\r\n\r\n", CHUNK_LINE_MAX - 4 + more, 0);
        assert_int_equal(decode(text.data, text.len, 7, &out, &used, &done),
                         more ? HTTP_FAULT_BAD_CHUNK : HTTP_FAULT_NONE);
    }
    buf_clear(&text);
    buf_add_str(&text, "0\r\n");
    while (text.len < CHUNK_TRAILER_MAX + 100)
        buf_add_str(&text, "Name: value of a trailer field\r\n");
    assert_int_equal(decode(text.data, text.len, 7, &out, &used, &done), HTTP_FAULT_BAD_TRAILER);
    assert_true(used <= CHUNK_TRAILER_MAX + 10);
    buf_fini(&text);
    buf_fini(&out);
}

static void size_lines(void **state)
{
    static const struct {
        size_t size;
        const char *line;
    } cases[] = {
        {0, "0\r\n"},
        {1, "1\r\n"},
        {16, "10\r\n"},
        {0xabcdef, "abcdef\r\n"},
        {SIZE_MAX, "ffffffffffffffff\r\n"},
    };
    char room[CHUNK_HEAD_ROOM];

    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        size_t n = chunk_size_line(room + sizeof(room), cases[i].size);
        assert_span(span_of(room + sizeof(room) - n, n), cases[i].line);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole),   cmocka_unit_test(in_pieces), cmocka_unit_test(cut_at_every_byte),
        cmocka_unit_test(refused), cmocka_unit_test(bounds),    cmocka_unit_test(size_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
