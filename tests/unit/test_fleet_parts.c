/*
 * The parts of the fleet that decide without IO: when to start again, whether
 * an answer is one, what a command line is; and the log file's last words.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "fleet/adapter.h"
#include "fleet/gguf.h"
#include "fleet/judge.h"
#include "fleet/log_file.h"
#include "fleet/restart.h"
#include "test.h"

/* --- restart --- */

static void test_waits_double_to_a_limit(void **state)
{
    static const uint64_t want[] = {250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000};
    struct restart r = {0};
    uint64_t wait;

    for (size_t i = 0; i < COUNT_OF(want); i++) {
        /* A minute apart, so that it is no crash loop; the middle of the jitter. */
        assert_true(restart_death(&r, i * 61000, 0, UINT32_MAX / 2, &wait));
        assert_in_range(wait, want[i] - 1, want[i]);
    }
    assert_true(restart_death(&r, 900000, RESTART_CALM_MS, UINT32_MAX / 2, &wait));
    assert_in_range(wait, 249, 250);
}

static void test_jitter(void **state)
{
    struct restart low = {0}, high = {0};
    uint64_t a, b;

    assert_true(restart_death(&low, 0, 0, 0, &a));
    assert_true(restart_death(&high, 0, 0, UINT32_MAX, &b));
    assert_int_equal(a, 200);
    assert_int_equal(b, 300);
    for (unsigned i = 0; i < 100; i++)
        assert_true(restart_death(&high, 1000000 * (i + 1), 0, UINT32_MAX, &b));
    assert_int_equal(b, RESTART_MOST_MS);
}

static void test_crash_loop(void **state)
{
    static const struct {
        uint64_t step_ms, ready_ms;
        int given_up_at; /* which death; 0: never */
    } cases[] = {
        {100, 0, 5},   /* at once each time */
        {15000, 0, 5}, /* 60 s from the first to the fifth: just a loop */
        {15001, 0, 0}, /* just none */
        {100, 1, 0},   /* it was ready each time: not a failed start */
        {100, 60000, 0},
    };

    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct restart r = {0};
        uint64_t wait;
        int at = 0;

        for (int n = 1; n <= 20 && !at; n++)
            if (!restart_death(&r, (uint64_t)n * cases[i].step_ms, cases[i].ready_ms, 7, &wait))
                at = n;
        if (at != cases[i].given_up_at)
            fail_msg("case %zu: given up at %d", i, at);
    }
    /* Being ready once in between begins the count anew. */
    struct restart r = {0};
    uint64_t wait;
    for (int n = 1; n <= 4; n++)
        assert_true(restart_death(&r, 1000 + n, 0, 7, &wait));
    assert_true(restart_death(&r, 1005, 500, 7, &wait));
    for (int n = 1; n <= 4; n++)
        assert_true(restart_death(&r, 1010 + n, 0, 7, &wait));
    assert_false(restart_death(&r, 1020, 0, 7, &wait));
}

/* --- judge --- */

#define ANSWER(content) \
    "{\"choices\":[{\"message\":{\"role\":\"assistant\",\"content\":" content "}}]}"

static void test_answers(void **state)
{
    static const struct {
        const char *body, *expect, *text, *says;
    } cases[] = {
        {ANSWER("\"Hello\""), NULL, "Hello", NULL},
        {ANSWER("\" \\n Hello, world. \\t\""), NULL, "Hello, world.", NULL},
        {ANSWER("\"42\""), NULL, "42", NULL},
        {ANSWER("\"好\""), NULL, "好", NULL},
        {ANSWER("\"!!\""), NULL, "!!", NULL},
        {ANSWER("\"!!!\""), NULL, NULL, "one character repeated"},
        {ANSWER("\"! ! \\n !\""), NULL, NULL, "one character repeated"},
        {ANSWER("\"好好好好\""), NULL, NULL, "one character repeated"},
        {ANSWER("\"好好好吧\""), NULL, "好好好吧", NULL},
        {ANSWER("\"\\ufffd\\ufffd\\ufffd\\ufffd\""), NULL, NULL, "one character repeated"},
        {ANSWER("\"\""), NULL, NULL, "is empty"},
        {ANSWER("\" \\n\\t \""), NULL, NULL, "is empty"},
        {ANSWER("null"), NULL, NULL, "has no choices[0].message.content"},
        {ANSWER("7"), NULL, NULL, "has no choices[0].message.content"},
        {"{\"choices\":[]}", NULL, NULL, "has no choices[0].message.content"},
        {"{}", NULL, NULL, "has no choices[0].message.content: {}"},
        {"[]", NULL, NULL, "has no choices[0].message.content"},
        {"{\"choices\":[{\"message\":{\"content\":\"Hel", NULL, NULL, "is not whole JSON"},
        {"", NULL, NULL, "is not whole JSON"},
        {"<html>", NULL, NULL, "is not whole JSON"},
        {ANSWER("\"Hello\"") "x", NULL, NULL, "is not whole JSON"},
        {ANSWER("\"Hello, World\""), "^hello.*world$", "Hello, World", NULL},
        {ANSWER("\"Bonjour\""), "hello|hi", NULL, "does not match \"hello|hi\" (`ready.expect`)"},
        {ANSWER("\"Hello\""), "(", NULL, "`ready.expect` is not a regular expression"},
        {ANSWER("\"4\""), "4", "4", NULL},
        {ANSWER("\"!!!!\""), "!", NULL, "one character repeated"},
    };

    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct err err;
        char *text;
        int rc = judge_answer(span_str(cases[i].body), cases[i].expect, &text, &err);

        if ((rc == 0) != (cases[i].text != NULL))
            fail_msg("case %zu (%s): %s", i, cases[i].body, rc ? err.text : "taken");
        if (rc == 0)
            assert_string_equal(text, cases[i].text);
        else if (!strstr(err.text, cases[i].says))
            fail_msg("case %zu says: %s", i, err.text);
        free(text);
    }
}

static void test_lists_of_models(void **state)
{
    static const struct {
        const char *body;
        const char *says; /* NULL: good */
    } cases[] = {
        {"{\"data\":[{\"id\":\"x\"}]}", NULL},
        {"{\"data\":[{\"id\":\"a\"},{\"id\":\"b\"},{\"id\":\"c\"},{\"id\":\"d\"},{\"id\":\"x\"}]}",
         NULL},
        {"{\"data\":[{\"id\":\"X\"}]}", "it serves 'X', not 'x'"},
        {"{\"data\":[{\"id\":\"a\"},{\"id\":\"b\"}]}", "it serves 'a', 'b', not 'x'"},
        {"{\"data\":[]}", "it serves no model, not 'x'"},
        {"{\"data\":[7,{\"id\":7},\"x\"]}", "it serves no model"},
        {"{\"data\":{}}", "not an OpenAI list"},
        {"nonsense", "not an OpenAI list of models: nonsense"},
        {"", "not an OpenAI list"},
    };

    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct err err = {0};
        int rc = judge_models(span_str(cases[i].body), "x", &err);

        if ((rc == 0) != (cases[i].says == NULL) ||
            (cases[i].says && !strstr(err.text, cases[i].says)))
            fail_msg("case %zu: %d %s", i, rc, err.text);
    }
}

static void test_excerpts_fit_a_sentence(void **state)
{
    char out[8];

    judge_excerpt(SPAN_LIT("a\r\nb\x7f"), out, sizeof(out));
    assert_string_equal(out, "a  b ");
    judge_excerpt(SPAN_LIT("123456789"), out, sizeof(out));
    assert_string_equal(out, "1234567");
    judge_excerpt(SPAN_LIT("12345好"), out, sizeof(out));
    assert_string_equal(out, "12345");
    judge_excerpt(SPAN_LIT("\xff\xfe好"), out, sizeof(out));
    assert_string_equal(out, "  好");
    judge_excerpt(SPAN_LIT(""), out, sizeof(out));
    assert_string_equal(out, "");
}

/* --- adapter --- */

static void command_line_is(const struct config *c, const struct config_version *v,
                            const char *address, const char *want)
{
    char **argv = adapter_argv(c, v, address);
    char *line = words_join(argv);

    assert_string_equal(line, want);
    free(line);
    words_free(argv);
}

static void test_command_lines(void **state)
{
    char *more[] = {(char *)"--verbose", (char *)"{port}", NULL};
    char *run[] = {(char *)"vllm",
                   (char *)"serve",
                   (char *)"--port={port}",
                   (char *)"{name}",
                   (char *)"{path}",
                   (char *)"{\"a\":{}}",
                   (char *)"",
                   (char *)"it's",
                   (char *)"{socket}",
                   (char *)"{unclosed",
                   NULL};
    struct config c = {.engine_program = (char *)"/bin/segue-engine"};
    struct config_version builtin = {.engine = CONFIG_ENGINE_BUILTIN,
                                     .path = (char *)"/m/a b.gguf",
                                     .served_model_name = (char *)"m@v1",
                                     .parallel = 8,
                                     .ctx_size = 512};
    struct config_version llama = {.engine = CONFIG_ENGINE_LLAMA_SERVER,
                                   .path = (char *)"/m.gguf",
                                   .served_model_name = (char *)"m@v1",
                                   .args = more};
    struct config_version command = {
        .engine = CONFIG_ENGINE_COMMAND, .served_model_name = (char *)"m@v1", .run = run};

    command_line_is(&c, &builtin, "unix:/s/e/x.sock",
                    "/bin/segue-engine --model '/m/a b.gguf' --served-model-name m@v1 --listen "
                    "unix:/s/e/x.sock --parallel 8 --ctx-size 512 --threads 0");
    command_line_is(&c, &llama, "127.0.0.1:4000",
                    "llama-server --model /m.gguf --alias m@v1 --host 127.0.0.1 --port 4000 "
                    "--verbose 4000");
    command_line_is(&c, &command, "127.0.0.1:4000",
                    "vllm serve --port=4000 m@v1 '{path}' '{\"a\":{}}' '' 'it'\\''s' '{socket}' "
                    "'{unclosed'");
    assert_int_equal(adapter_place(&builtin), ADAPTER_SOCKET);
    assert_int_equal(adapter_place(&llama), ADAPTER_PORT);
    assert_int_equal(adapter_place(&command), ADAPTER_SOCKET);
    run[8] = NULL;
    assert_int_equal(adapter_place(&command), ADAPTER_PORT);
}

/* --- model files --- */

static char model_path[] = "/tmp/segue-gguf-XXXXXX";

static void write_model(const char *bytes, size_t n)
{
    FILE *f = fopen(model_path, "we");

    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

/* A header with one key of each kind and two tensors of 32 elements. */
static size_t small_model(char *out, size_t room)
{
    struct buf b = {0};
    const uint64_t two = 2, five = 5, none = 0, elements = 32, second = 128;
    const uint32_t u32 = 4, string = 8, array = 9, u8 = 0, f32 = 0, one = 1, alignment = 64;
    const uint32_t version = 3;

#define PUT(x) buf_add(&b, &(x), sizeof(x))
#define PUT_TEXT(text)              \
    do {                            \
        uint64_t n_ = strlen(text); \
        PUT(n_);                    \
        buf_add_str(&b, text);      \
    } while (0)
    buf_add_str(&b, "GGUF");
    PUT(version);
    PUT(two);
    PUT(five);
    PUT_TEXT("general.alignment");
    PUT(u32);
    PUT(alignment);
    PUT_TEXT("general.name");
    PUT(string);
    PUT_TEXT("a model");
    PUT_TEXT("words");
    PUT(array);
    PUT(string);
    PUT(two);
    PUT_TEXT("one");
    PUT_TEXT("");
    PUT_TEXT("bytes");
    PUT(array);
    PUT(u8);
    PUT(five);
    buf_add(&b, "12345", 5);
    PUT_TEXT("number");
    PUT(u32);
    PUT(one);
    PUT_TEXT("first");
    PUT(one);
    PUT(elements);
    PUT(f32);
    PUT(none);
    PUT_TEXT("second");
    PUT(one);
    PUT(elements);
    PUT(f32);
    PUT(second);
    while (b.len % 64)
        buf_add_char(&b, 0);
    for (int i = 0; i < 2 * 128; i++)
        buf_add_char(&b, 'x');
    assert_true(b.len <= room);
    memcpy(out, b.data, b.len);
    size_t n = b.len;
    buf_fini(&b);
    return n;
}

static void test_each_cut_of_a_model_is_refused(void **state)
{
    char model[2048];
    struct err err;
    size_t n = small_model(model, sizeof(model));

    write_model(model, n);
    if (gguf_check(model_path, &err) != 0)
        fail_msg("%s", err.text);
    for (size_t i = 0; i < n; i++) {
        write_model(model, i);
        assert_int_equal(gguf_check(model_path, &err), -1);
    }
    unlink(model_path);
}

/* Each byte of the header takes each of some bad values; nothing may crash or hang. */
static void test_damaged_models_do_no_harm(void **state)
{
    static const unsigned char values[] = {0, 1, 9, 0x7f, 0x80, 0xff};
    char model[2048];
    size_t n = small_model(model, sizeof(model));

    for (size_t i = 0; i < n - 2 * 128; i++)
        for (size_t v = 0; v < COUNT_OF(values); v++) {
            char old = model[i];
            struct err err = {0};

            model[i] = (char)values[v];
            write_model(model, n);
            if (gguf_check(model_path, &err) != 0)
                assert_non_null(strstr(err.text, model_path));
            model[i] = old;
        }
    unlink(model_path);
}

/* --- log file --- */

static char log_path[] = "/tmp/segue-log-XXXXXX";

static int log_make(void **state)
{
    strcpy(log_path + strlen(log_path) - 6, "XXXXXX");
    int fd = mkstemp(log_path);

    return fd < 0 ? -1 : close(fd);
}

static int log_remove(void **state)
{
    return unlink(log_path);
}

static void say(const char *text)
{
    struct err err;
    int fd = log_file_open(log_path, &err);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

static void mark(void)
{
    struct err err;
    int fd = log_file_open(log_path, &err);

    log_file_mark(fd, "starts m@v1#0: engine");
    close(fd);
}

static void words_are(const char *want)
{
    char out[400];

    log_file_last_words(log_path, 3, out, sizeof(out));
    assert_string_equal(out, want);
}

static void test_last_words(void **state)
{
    words_are("");
    say("before\n");
    words_are("before");
    mark();
    words_are("");
    say("one\n");
    words_are("one");
    say("two\n\nthree\tfour\n");
    words_are("two | three four");
    say("== segue is only a word here? yes, a mark begins a line\n");
    mark();
    say("unfinished");
    words_are("unfinished");
    say("\n\xff\xfe bad bytes \x01\n");
    words_are("unfinished |    bad bytes  ");
    unlink(log_path);
    words_are("");
    say("");
}

static void tail_is(unsigned lines, const char *want)
{
    struct err err;
    char *text = log_file_tail(log_path, lines, &err);

    assert_string_equal(text, want);
    free(text);
}

static void test_tail(void **state)
{
    struct err err;

    tail_is(3, "");
    say("a\nb\nc\n");
    tail_is(0, "");
    tail_is(1, "c\n");
    tail_is(2, "b\nc\n");
    tail_is(3, "a\nb\nc\n");
    tail_is(99, "a\nb\nc\n");
    say("d");
    tail_is(2, "c\nd");
    assert_null(log_file_tail("/tmp", 3, &err)); /* no file */
    assert_null(log_file_tail("/nowhere", 3, &err));
    assert_int_equal(err.status, 404);
}

static void test_bound(void **state)
{
    struct err err;
    int fd = log_file_open(log_path, &err);
    char line[65];

    for (int i = 0; i < LOG_FILE_MOST / 64; i++) {
        snprintf(line, sizeof(line), "%063d\n", i);
        assert_int_equal(write(fd, line, 64), 64);
    }
    assert_false(log_file_bound(log_path));
    assert_int_equal(write(fd, "one more\n", 9), 9);
    assert_true(log_file_bound(log_path));
    assert_in_range(lseek(fd, 0, SEEK_END), LOG_FILE_KEEP - 64, LOG_FILE_KEEP);
    /* The writer goes on at the end, and the file begins with a whole line. */
    assert_int_equal(write(fd, "and on\n", 7), 7);
    close(fd);
    tail_is(2, "one more\nand on\n");
    fd = open(log_path, O_RDONLY);
    assert_int_equal(read(fd, line, 64), 64);
    assert_int_equal(line[63], '\n');
    close(fd);
}

static void test_bound_of_a_single_line(void **state)
{
    char *text = mem_alloc(LOG_FILE_MOST + 2);
    struct err err;

    memset(text, 'x', LOG_FILE_MOST + 1);
    text[LOG_FILE_MOST + 1] = '\0';
    say(text);
    free(text);
    assert_true(log_file_bound(log_path));
    text = log_file_tail(log_path, 1, &err);
    assert_int_equal(strlen(text), 1 << 20);
    free(text);
    assert_false(log_file_bound("/nowhere"));
}

int main(void)
{
#define WITH_LOG(test) cmocka_unit_test_setup_teardown(test, log_make, log_remove)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_waits_double_to_a_limit),
        cmocka_unit_test(test_jitter),
        cmocka_unit_test(test_crash_loop),
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_lists_of_models),
        cmocka_unit_test(test_excerpts_fit_a_sentence),
        cmocka_unit_test(test_command_lines),
        cmocka_unit_test(test_each_cut_of_a_model_is_refused),
        cmocka_unit_test(test_damaged_models_do_no_harm),
        WITH_LOG(test_last_words),
        WITH_LOG(test_tail),
        WITH_LOG(test_bound),
        WITH_LOG(test_bound_of_a_single_line),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
