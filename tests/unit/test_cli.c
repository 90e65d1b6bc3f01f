/*
 * cli - the command line, widths and tables, server-sent events; and the known
 * question of the configuration, which must be the translate prompt.
 */
#include "test.h"

#include <stdio.h>
#include <stdlib.h>

#include "cli/args.h"
#include "cli/cli.h"
#include "cli/screen.h"
#include "cli/sse.h"
#include "config/config.h"
#include "translate/prompt.h"

enum { ARGV_MAX = 16 };

/* Splits at spaces into argv; "segue" is put before. */
static int split(char *line, char *argv[ARGV_MAX])
{
    int argc = 1;

    argv[0] = (char *)"segue";
    for (char *word = strtok(line, " "); word; word = strtok(NULL, " "))
        argv[argc++] = word;
    argv[argc] = NULL;
    return argc;
}

static void test_args(void **state)
{
    char line[] = "-S a.sock deploy hy-mt ./v2 --version=v7 --json -- --odd - -n";
    char *argv[ARGV_MAX];
    struct args args;
    struct err err;

    assert_int_equal(args_parse(&args, split(line, argv), argv, &err), 0);
    assert_int_equal(args.nwords, 6);
    assert_string_equal(args.words[0], "deploy");
    assert_string_equal(args.words[3], "--odd");
    assert_string_equal(args.words[4], "-");
    assert_string_equal(args.words[5], "-n");
    assert_string_equal(args.options[OPTION_SOCKET], "a.sock");
    assert_string_equal(args.options[OPTION_VERSION], "v7");
    assert_true(args_has(&args, OPTION_JSON));
    assert_false(args_has(&args, OPTION_LINES));
}

static void test_args_refused(void **state)
{
    static const struct {
        const char *line, *say;
    } rows[] = {
        {"status --jsn", "unknown option --jsn; did you mean --json?"},
        {"status --frobnicate", "unknown option --frobnicate"},
        {"status -x", "unknown option -x"},
        {"status --json=1", "option --json takes no value"},
        {"logs a -n", "option -n needs a value: --lines N"},
        {"a b c d e f g h i", "too many words; a text with spaces needs quotes"},
    };

    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        char line[64], *argv[ARGV_MAX];
        struct args args;
        struct err err;
        snprintf(line, sizeof(line), "%s", rows[i].line);
        assert_int_equal(args_parse(&args, split(line, argv), argv, &err), -1);
        assert_string_equal(err.text, rows[i].say);
    }
}

static void test_command(void **state)
{
    char line[] = "-S x.sock --json serve -c a.yaml", only[] = "--json", *argv[ARGV_MAX];

    assert_string_equal(cli_command(split(line, argv), argv), "serve");
    assert_null(cli_command(split(only, argv), argv));
}

/* Runs a command line with both outputs caught; returns the exit code. */
static int run(const char *text, char **out)
{
    char line[128], *argv[ARGV_MAX];
    size_t n;
    FILE *caught = open_memstream(out, &n), *saved_out = stdout, *saved_err = stderr;

    snprintf(line, sizeof(line), "%s", text);
    stdout = stderr = caught;
    int code = cli_main(split(line, argv), argv);
    stdout = saved_out;
    stderr = saved_err;
    fclose(caught);
    return code;
}

static void test_usage(void **state)
{
    static const struct {
        const char *line;
        int code;
        const char *say;
    } rows[] = {
        {"", CLI_USAGE, "usage: segue COMMAND"},
        {"--help", CLI_DONE, "usage: segue COMMAND"},
        {"--version", CLI_DONE, "segue " SEGUE_VERSION "\n"},
        {"version --json", CLI_DONE, "{\"version\":\"" SEGUE_VERSION "\"}\n"},
        {"deplyo a b", CLI_USAGE, "no command 'deplyo'; did you mean 'deploy'?"},
        {"frobnicate", CLI_USAGE, "no command 'frobnicate'; `segue help` lists them"},
        {"config", CLI_USAGE, "`config check` or `config keys`"},
        {"config chekc x", CLI_USAGE, "did you mean 'config check'?"},
        {"switch hy-mt", CLI_USAGE, "switch takes MODEL VERSION"},
        {"status now", CLI_USAGE, "status takes no words"},
        {"translate guten tag", CLI_USAGE, "a text with spaces needs quotes"},
        {"translate hallo", CLI_USAGE, "translate needs --to LANGUAGE"},
        {"translate hallo --to Germn", CLI_USAGE, "did you mean 'German'?"},
        {"translate hallo --to en --from klingon", CLI_USAGE, "the languages are zh, en, fr"},
        {"deploy a b -n 3", CLI_USAGE, "deploy does not take --lines"},
        {"receipt last", CLI_USAGE, "'last' is not the number of a receipt"},
        {"logs a -n many", CLI_USAGE, "'many' is not a number of lines"},
        {"help deploy", CLI_DONE, "--no-wait"},
        {"deploy --help", CLI_DONE, "usage: segue deploy MODEL PATH"},
        {"help config check", CLI_DONE, "usage: segue config check [FILE]"},
        {"config check /nonexistent.yaml", CLI_USAGE, "No such file or directory"},
        {"config keys", CLI_DONE, "# Configuration"},
        {"status -S /nonexistent.sock", CLI_NO_SERVER, "nobody answers at /nonexistent.sock"},
        {"translate a --to fr -S /nonexistent.sock", CLI_NO_SERVER, "nobody answers"},
    };

    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        char *out = NULL;
        int code = run(rows[i].line, &out);
        if (code != rows[i].code || !strstr(out, rows[i].say))
            fail_msg("`segue %s`: %d\n%s", rows[i].line, code, out);
        free(out);
    }
}

static void test_widths(void **state)
{
    static const struct {
        const char *text;
        size_t width;
    } rows[] = {{"", 0},     {"abc", 3},  {"你好", 4},     {"é", 1},    {"e\xcc\x81", 1},
                {"ＡＢ", 4}, {"한국", 4}, {"日本語 x", 8}, {"\xff", 1}, {"→", 1}};

    for (size_t i = 0; i < COUNT_OF(rows); i++)
        if (text_width(rows[i].text) != rows[i].width)
            fail_msg("'%s' is %zu wide", rows[i].text, text_width(rows[i].text));
    assert_int_equal(text_fit("你好世界", 5), 6);
    assert_int_equal(text_fit("abc", 10), 3);
    assert_int_equal(text_fit("abc", 0), 0);
}

static void test_table(void **state)
{
    static const char *const heads[] = {"NAME", ">N", "NOTE", NULL};
    struct table *t = table_new(heads);
    char *text = NULL;
    size_t n;
    FILE *out = tmpfile();

    table_cell(t, INK_BOLD, "模型");
    table_cell(t, INK_PLAIN, "%d", 7);
    table_cell(t, INK_PLAIN, "first\nline");
    table_cell(t, INK_PLAIN, "b");
    table_cell(t, INK_PLAIN, "%d", 1234);
    table_cell(t, INK_PLAIN, "%s", "");
    table_print(t, out);
    n = (size_t)ftell(out);
    rewind(out);
    text = calloc(1, n + 1);
    assert_int_equal(fread(text, 1, n, out), n);
    fclose(out);
    assert_string_equal(text, "NAME     N  NOTE\n"
                              "模型     7  first?line\n"
                              "b     1234  \n");
    free(text);
}

static void test_numbers(void **state)
{
    char text[NUMBER_TEXT_MAX];

    assert_string_equal(number_text(0, text), "0");
    assert_string_equal(number_text(999, text), "999");
    assert_string_equal(number_text(1000, text), "1,000");
    assert_string_equal(number_text(-1234567, text), "-1,234,567");
    assert_string_equal(number_text(INT64_MIN, text), "-9,223,372,036,854,775,808");
    assert_string_equal(time_text(0.000412, text), "412 us");
    assert_string_equal(time_text(0.001, text), "1.0 ms");
    assert_string_equal(time_text(0.812, text), "812 ms");
    assert_string_equal(time_text(3.25, text), "3.2 s");
    assert_string_equal(time_text(250, text), "4 min 10 s");
    assert_string_equal(time_text(7500, text), "2 h 5 min");
    assert_string_equal(time_text(273600, text), "3 d 4 h");
}

static void collect(const char *event, struct span data, void *arg)
{
    buf_addf(arg, "[%s|" SPAN_FMT "]", event, SPAN_ARG(data));
}

/* The same events, however the bytes are cut. */
static void test_sse(void **state)
{
    static const char stream[] =
        ": ping\n\nevent: progress\ndata: {\"a\":1}\n\ndata: x\r\ndata:y\r\n"
        "\r\nid: 3\ndata\n\nevent: lost\n\ndata: last";
    static const char want[] = "[progress|{\"a\":1}][|x\ny][|]";

    for (size_t step = 1; step <= sizeof(stream); step++) {
        struct sse s = {0};
        struct buf got = {0};
        for (size_t i = 0; i < sizeof(stream) - 1; i += step) {
            size_t n = sizeof(stream) - 1 - i < step ? sizeof(stream) - 1 - i : step;
            assert_true(sse_feed(&s, span_of(stream + i, n), collect, &got));
        }
        assert_string_equal(buf_cstr(&got), want);
        sse_fini(&s);
        buf_fini(&got);
    }
}

static void test_sse_bounded(void **state)
{
    struct sse s = {0};
    struct buf got = {0};
    char block[4096];
    bool ok = true;

    memset(block, 'a', sizeof(block));
    for (size_t n = 0; ok && n <= SSE_EVENT_MAX; n += sizeof(block))
        ok = sse_feed(&s, span_of(block, sizeof(block)), collect, &got);
    assert_false(ok);
    sse_fini(&s);
    buf_fini(&got);
}

static void test_known_question(void **state)
{
    struct buf said = {0}, prompt = {0};
    struct config *c = config_parse(
        SPAN_LIT("models: { m: { versions: { v: { engine: openai, url: 'unix:/x' } } } }"), "x",
        "/", &said);

    prompt_translate(&prompt, NULL, language_find("en"), SPAN_LIT("你好，世界。"));
    assert_string_equal(c->models[0].ready.ask, buf_cstr(&prompt));
    config_free(c);
    buf_fini(&said);
    buf_fini(&prompt);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_args),        cmocka_unit_test(test_args_refused),
        cmocka_unit_test(test_command),     cmocka_unit_test(test_usage),
        cmocka_unit_test(test_widths),      cmocka_unit_test(test_table),
        cmocka_unit_test(test_numbers),     cmocka_unit_test(test_sse),
        cmocka_unit_test(test_sse_bounded), cmocka_unit_test(test_known_question),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
