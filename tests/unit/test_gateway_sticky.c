/*
 * What a conversation is known by, its first message as jansson finds it, and
 * that the numbers are evenly spread.
 */
#include "gateway/sticky.h"

#include <stdio.h>
#include <stdlib.h>

#include "../fuzz/first_reference.h"
#include "test.h"

static struct span lit(const char *s)
{
    return span_of(s, strlen(s));
}

/* --- the first element --------------------------------------------------------- */

static void first_element(void **state)
{
    static const struct {
        const char *array, *first;
    } cases[] = {
        {"[]", ""},
        {"[ \t\r\n ]", ""},
        {"[1]", "1"},
        {"[ -1.5e+3 ]", "-1.5e+3"},
        {"[\n\t null\r\n,2]", "null"},
        {"[true,false]", "true"},
        {"[\"a\"]", "\"a\""},
        {"[\"\"]", "\"\""},
        {"[\"\", 1]", "\"\""},
        {"[ \" a , b \" , 1]", "\" a , b \""},
        {"[\"]\",1]", "\"]\""},
        {"[\"[{\",1]", "\"[{\""},
        {"[\"\\\"],\",1]", "\"\\\"],\""},
        {"[\"\\\\\",\"]\"]", "\"\\\\\""},
        {"[\"\\\\\\\"]\",2]", "\"\\\\\\\"]\""},
        {"[\"\\u005d\\u0022\",2]", "\"\\u005d\\u0022\""},
        {"[\"你好，]\",2]", "\"你好，]\""},
        {"[[]]", "[]"},
        {"[[],[]]", "[]"},
        {"[{}]", "{}"},
        {"[ { } , { } ]", "{ }"},
        {"[[[[1,2],3],4],5]", "[[[1,2],3],4]"},
        {"[{\"a\":[1,{\"b\":\"}]\"}],\"c\":2},{\"d\":3}]", "{\"a\":[1,{\"b\":\"}]\"}],\"c\":2}"},
        {"[{\"role\":\"user\",\"content\":\"a\\n],[b\"} ,{\"role\":\"assistant\"}]",
         "{\"role\":\"user\",\"content\":\"a\\n],[b\"}"},
        {"[{\"content\":[{\"type\":\"text\",\"text\":\"x\"},{\"type\":\"image\"}]}]",
         "{\"content\":[{\"type\":\"text\",\"text\":\"x\"},{\"type\":\"image\"}]}"},
        {"[{\"]\":\"}\"},1]", "{\"]\":\"}\"}"},
        /* no array: what stands there is valid JSON all the same */
        {"{}", ""},
        {"{\"a\":[1]}", ""},
        {"\"[1]\"", ""},
        {"1", ""},
        {"null", ""},
        {"", ""},
    };

    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        size_t n = strlen(cases[i].array);
        char *copy = malloc(n ? n : 1); /* with nothing readable behind it */
        memcpy(copy, cases[i].array, n);
        struct span first = sticky_first(span_of(copy, n));
        assert_span(first, cases[i].first);
        if (n) {
            enum first says = first_reference(copy, n, first.p, first.n);
            assert_int_equal(says, first.n ? FIRST_SAME : FIRST_NONE);
        }
        free(copy);
    }
}

/* Nested as deep as the scanner lets it be. */
static void first_deep(void **state)
{
    char text[2 * JSON_DEPTH_MAX];

    memset(text, '[', JSON_DEPTH_MAX);
    memset(text + JSON_DEPTH_MAX, ']', JSON_DEPTH_MAX);
    struct span first = sticky_first(span_of(text, sizeof(text)));
    assert_ptr_equal(first.p, text + 1);
    assert_int_equal(first.n, sizeof(text) - 2);
}

/* --- which source -------------------------------------------------------------- */

#define USER "\"u-1\""
#define MESSAGES "[{\"role\":\"user\",\"content\":\"hi\"}]"
#define PROMPT "\"once upon\""

static uint64_t number(const char *header, const char *user, const char *messages,
                       const char *prompt)
{
    return sticky_number(&(struct sticky_source){.header = lit(header),
                                                 .user = lit(user),
                                                 .messages = lit(messages),
                                                 .prompt = lit(prompt)});
}

static void sources(void **state)
{
    static const struct {
        const char *header, *user, *messages, *prompt;
        char wins; /* the source that decides; '-': none */
    } cases[] = {
        {"s-1", USER, MESSAGES, PROMPT, 'h'},
        {"s-1", "", "", "", 'h'},
        {"s-1", USER, "", "", 'h'},
        {"s-1", "", MESSAGES, "", 'h'},
        {"", USER, MESSAGES, PROMPT, 'u'},
        {"", USER, "", PROMPT, 'u'},
        {"", USER, "[]", "", 'u'},
        {"", "", MESSAGES, PROMPT, 'm'},
        {"", "\"\"", MESSAGES, PROMPT, 'm'}, /* nobody is not somebody */
        {"", "", MESSAGES, "", 'm'},
        {"", "", "", PROMPT, 'p'},
        {"", "\"\"", "[ ]", PROMPT, 'p'},
        {"", "", "\"text\"", PROMPT, 'p'},
        {"", "", "", "", '-'},
        {"", "\"\"", "[]", "", '-'},
        {"", "", "null", "", '-'},
    };
    uint64_t by_header = number("s-1", "", "", ""), by_user = number("", USER, "", ""),
             by_messages = number("", "", MESSAGES, ""), by_prompt = number("", "", "", PROMPT);

    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        uint64_t got = number(cases[i].header, cases[i].user, cases[i].messages, cases[i].prompt);
        uint64_t want = cases[i].wins == 'h'   ? by_header
                        : cases[i].wins == 'u' ? by_user
                        : cases[i].wins == 'm' ? by_messages
                        : cases[i].wins == 'p' ? by_prompt
                                               : 0;
        if (got != want)
            fail_msg("case %zu: not by '%c'", i, cases[i].wins);
    }
    assert_true(by_header && by_user && by_messages && by_prompt);
    assert_true(by_header != by_user && by_user != by_messages && by_messages != by_prompt);
}

/* A conversation grows; its first message stays. */
static void same_conversation(void **state)
{
    static const char *const turns[] = {
        "[{\"role\":\"user\",\"content\":\"hi\"}]",
        "[{\"role\":\"user\",\"content\":\"hi\"},{\"role\":\"assistant\",\"content\":\"yes?\"}]",
        "[\n  {\"role\":\"user\",\"content\":\"hi\"} ,\n  {\"role\":\"x\",\"content\":[\"]\"]}\n]",
    };
    static const char *const others[] = {
        "[{\"role\":\"user\",\"content\":\"Hi\"}]",
        "[{\"role\":\"user\",\"content\":\"hi \"}]",
        "[{\"role\":\"system\",\"content\":\"\"},{\"role\":\"user\",\"content\":\"hi\"}]",
    };
    uint64_t first = number("", "", turns[0], "");

    for (size_t i = 0; i < COUNT_OF(turns); i++)
        assert_true(number("", "", turns[i], "") == first);
    for (size_t i = 0; i < COUNT_OF(others); i++)
        assert_true(number("", "", others[i], "") != first);
}

/* --- spread -------------------------------------------------------------------- */

/* The upper bits decide: 256 bins by them, and each bit alone. */
static void spread_of(const char *form)
{
    enum { N = 1 << 16, BINS = 256 };
    static unsigned bins[BINS];
    unsigned bits[64] = {0};
    char text[64];
    double chi = 0;

    memset(bins, 0, sizeof(bins));
    for (unsigned i = 0; i < N; i++) {
        snprintf(text, sizeof(text), form, i);
        uint64_t h = number(text, "", "", "");
        assert_true(h != 0);
        bins[h >> 56]++;
        for (int b = 0; b < 64; b++)
            bits[b] += h >> b & 1;
    }
    for (int i = 0; i < BINS; i++) {
        double d = (double)bins[i] - (double)N / BINS;
        chi += d * d / ((double)N / BINS);
    }
    /* 255 degrees of freedom: 255 ± 22.6, here five deviations */
    assert_true(chi > 142 && chi < 368);
    for (int b = 0; b < 64; b++)
        assert_in_range(bits[b], N / 2 - 640, N / 2 + 640);
}

static void spread(void **state)
{
    spread_of("%u");
    spread_of("user-%06u@example.org");
    spread_of("%u--------------------------------");
    spread_of("00000000-0000-4000-8000-%012x");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_element), cmocka_unit_test(first_deep),
        cmocka_unit_test(sources),       cmocka_unit_test(same_conversation),
        cmocka_unit_test(spread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
