/* Long texts are tokenized in pieces: the same ids as in one, and no stack runs over. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "engine/backend.h"
#include "engine/model.h"
#include "engine/prompt.h"
#include "test.h"

static struct model *model;

static int begin(void **state)
{
    struct model_options how = {.mmap = true};
    struct err err;

    if (backend_start(NULL, false, &err) == 0)
        model = model_load(SOURCE_ROOT "/models/tiny-mt-v1.gguf", &how, &err);
    if (!model)
        print_error("%s\n", err.text);
    return model ? 0 : -1;
}

static int end(void **state)
{
    model_unref(model);
    backend_stop();
    return 0;
}

/* As many of the golden pairs, from the given line on, as fit into `n` bytes. */
static void golden(struct buf *out, int from, size_t n, bool chinese, const char *between)
{
    FILE *f = fopen(SOURCE_ROOT "/models/golden.zh-en.tsv", "r");
    char line[4096];

    assert_non_null(f);
    for (int i = 0; fgets(line, sizeof(line), f); i++) {
        char *tab = strchr(line, '\t');
        assert_non_null(tab);
        *tab = '\0';
        char *text = chinese ? line : tab + 1;
        text[strcspn(text, "\n\t")] = '\0';
        if (i < from || buf_pending(out) + strlen(text) + 8 > n)
            continue;
        buf_add_str(out, text);
        buf_add_str(out, between);
    }
    fclose(f);
}

static void assert_same_as_in_one(struct span text)
{
    struct prompt p = {0};
    struct err err;
    llama_token *whole = malloc(text.n * sizeof(whole[0]));
    int32_t n =
        llama_tokenize(model->vocab, text.p, (int32_t)text.n, whole, (int32_t)text.n, false, false);

    assert_true(n > 0);
    assert_int_equal(prompt_add_text(&p, model, text, false, false, &err), 0);
    assert_int_equal(p.n, n);
    assert_memory_equal(p.tokens, whole, (size_t)n * sizeof(whole[0]));
    prompt_fini(&p);
    free(whole);
}

static void pieces_are_cut_where_words_end(void **state)
{
    static const char *const between[] = {"", " ", "\n", "\n\n", "  ", "，", " - "};
    struct buf text = {0};

    for (size_t i = 0; i < COUNT_OF(between); i++)
        for (int from = 0; from < 300; from += 60)
            for (int chinese = 0; chinese < 2; chinese++) {
                buf_clear(&text);
                golden(&text, from, 9000, chinese, between[i]);
                assert_true(buf_pending(&text) > 4200);
                assert_same_as_in_one(buf_span(&text));
            }
    buf_fini(&text);
}

static void endless_words_are_survived(void **state)
{
    static const char *const units[] = {"a",  "é", "中", " ",  "\n",  "1",   "!",
                                        "。", "🎉", "ا",  "a1", "!\n", "\t ", "<｜hy_User｜>"};
    struct err err;

    for (size_t i = 0; i < COUNT_OF(units); i++) {
        struct buf text = {0};
        struct prompt p = {0};
        char piece[1024];
        while (buf_pending(&text) < 120000)
            buf_add_str(&text, units[i]);
        assert_int_equal(prompt_add_text(&p, model, buf_span(&text), false, false, &err), 0);
        size_t bytes = 0;
        for (size_t j = 0; j < p.n; j++)
            bytes += model_piece(model, p.tokens[j], true, piece, sizeof(piece));
        assert_int_equal(bytes, buf_pending(&text));
        prompt_fini(&p);
        buf_fini(&text);
    }
}

static void nothing_is_nothing(void **state)
{
    struct prompt p = {0};
    struct err err;

    assert_int_equal(prompt_add_text(&p, model, span_of(NULL, 0), false, true, &err), 0);
    assert_int_equal(p.n, 0);
    prompt_fini(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_are_cut_where_words_end),
        cmocka_unit_test(endless_words_are_survived),
        cmocka_unit_test(nothing_is_nothing),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
