/* What of a stream's text may be passed on: stop strings and characters that tokens cut. */
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "engine/tail.h"
#include "test.h"

/* Feeds `text` in pieces of the given length; returns what came out, and whether it stopped.
 * Each piece that comes out must be whole characters. */
static bool feed(const struct stops *stops, const char *text, size_t piece, struct buf *all)
{
    struct tail t = {.stops = stops};
    size_t n = strlen(text);
    bool stopped = false;

    for (size_t i = 0; i < n && !stopped; i += piece) {
        struct buf out = {0};
        stopped = tail_add(&t, span_of(text + i, n - i < piece ? n - i : piece), &out);
        if (buf_pending(&out))
            assert_true(utf8_valid(buf_head(&out), buf_pending(&out)) || strstr(text, "bad"));
        buf_add_span(all, buf_span(&out));
        buf_fini(&out);
    }
    if (!stopped)
        tail_flush(&t, all);
    assert_int_equal(buf_pending(&t.held), 0);
    tail_fini(&t);
    return stopped;
}

static void stops_are_found_however_the_text_is_cut(void **state)
{
    static const struct {
        const char *stop[3], *text, *out;
        bool stopped;
    } cases[] = {
        {{0}, "abc", "abc", false},
        {{"b"}, "abc", "a", true},
        {{"abc"}, "abc", "", true},
        {{"abcd"}, "abc", "abc", false},
        {{"abd"}, "ababd!", "ab", true},
        {{"aab"}, "aaaab", "aa", true},
        {{"xyz", "yz"}, "wxyz", "w", true},
        {{"night", "gh"}, "last night", "last ni", true},
        {{"火锅"}, "我和朋友吃火锅。", "我和朋友吃", true},
        {{"火车"}, "我和朋友吃火锅。", "我和朋友吃火锅。", false},
        {{"\n\n"}, "a\nb\n\nc", "a\nb", true},
        {{"🎉"}, "Olé 😀🎉!", "Olé 😀", true},
        {{0}, "Olé 😀🎉!", "Olé 😀🎉!", false},
    };

    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct stops stops = {0};
        while (stops.n < 3 && cases[i].stop[stops.n]) {
            stops.s[stops.n] = span_str(cases[i].stop[stops.n]);
            stops.n++;
        }
        for (size_t piece = 1; piece < 12; piece++) {
            struct buf all = {0};
            assert_int_equal(feed(&stops, cases[i].text, piece, &all), cases[i].stopped);
            assert_span(buf_span(&all), cases[i].out);
            buf_fini(&all);
        }
    }
}

static void text_is_passed_on_as_soon_as_it_may(void **state)
{
    struct stops stops = {.s = {span_str("STOP")}, .n = 1};
    struct tail t = {.stops = &stops};
    struct buf out = {0};

    assert_false(tail_add(&t, span_str("one ST"), &out));
    assert_span(buf_span(&out), "one ");
    assert_false(tail_add(&t, span_str("AR \xe7\x81"), &out));
    assert_span(buf_span(&out), "one STAR ");
    assert_false(tail_add(&t, span_str("\xab"), &out));
    assert_span(buf_span(&out), "one STAR 火");
    assert_true(tail_add(&t, span_str("STOP and more"), &out));
    assert_span(buf_span(&out), "one STAR 火");
    buf_fini(&out);
    tail_fini(&t);
}

static void a_begun_character_at_the_end_is_dropped(void **state)
{
    struct stops none = {0};
    struct buf out = {0};

    assert_false(feed(&none, "ok \xe7\x81", 1, &out));
    assert_span(buf_span(&out), "ok ");
    buf_clear(&out);
    assert_false(feed(&none, "bad \x81\xff!", 1, &out)); /* never a character: not held back */
    assert_span(buf_span(&out), "bad \x81\xff!");
    buf_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stops_are_found_however_the_text_is_cut),
        cmocka_unit_test(text_is_passed_on_as_soon_as_it_may),
        cmocka_unit_test(a_begun_character_at_the_end_is_dropped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
