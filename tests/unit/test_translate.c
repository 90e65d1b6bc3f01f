/*
 * translate - the prompts are HY-MT's own, byte for byte, and the languages are
 * those that it knows.
 */
#include "test.h"

#include "translate/prompt.h"

static void expect_prompt(const char *from, const char *to, const char *text, const char *want)
{
    struct buf out = {0};

    prompt_translate(&out, from ? language_find(from) : NULL, language_find(to), span_str(text));
    assert_string_equal(buf_cstr(&out), want);
    buf_fini(&out);
}

static void test_prompts(void **state)
{
    expect_prompt(
        NULL, "en", "你好，世界。",
        "将以下文本翻译为英语，注意只需要输出翻译后的结果，不要额外解释：\n\n你好，世界。");
    expect_prompt(NULL, "zh", "Hello.",
                  "将以下文本翻译为中文，注意只需要输出翻译后的结果，不要额外解释：\n\nHello.");
    expect_prompt(
        "fr", "zh-Hant", "Bonjour",
        "将以下文本翻译为繁体中文，注意只需要输出翻译后的结果，不要额外解释：\n\nBonjour");
    expect_prompt("zh", "de", "OK",
                  "将以下文本翻译为德语，注意只需要输出翻译后的结果，不要额外解释：\n\nOK");
    expect_prompt(
        NULL, "en", "Bonjour",
        "Translate the following segment into English, without additional explanation.\n\n"
        "Bonjour");
    /* Japanese has Chinese characters too. */
    expect_prompt(
        NULL, "en", "日本語です",
        "Translate the following segment into English, without additional explanation.\n\n"
        "日本語です");
    /* Said to be Japanese, so the characters do not matter. */
    expect_prompt(
        "ja", "en", "日本",
        "Translate the following segment into English, without additional explanation.\n\n"
        "日本");
    expect_prompt(NULL, "fr", "",
                  "Translate the following segment into French, without additional "
                  "explanation.\n\n");
}

static void test_looks_chinese(void **state)
{
    static const struct {
        const char *text;
        bool chinese;
    } rows[] = {
        {"你好", true},
        {"I said 你好 to her", true},
        {"hello", false},
        {"", false},
        {"こんにちは", false},
        {"안녕하세요", false},
        {"漢字かな", false},
        {"，。", false},
        {"𠀀", true},
        {"\xff\xe4\xbd", false},
        {"カタカナ漢字", false},
    };

    for (size_t i = 0; i < COUNT_OF(rows); i++)
        if (prompt_looks_chinese(span_str(rows[i].text)) != rows[i].chinese)
            fail_msg("'%s'", rows[i].text);
}

static void test_languages(void **state)
{
    size_t n = 0;

    while (language_at(n)) {
        const struct language *l = language_at(n++);
        assert_ptr_equal(language_find(l->code), l);
        assert_ptr_equal(language_find(l->english), l);
        assert_ptr_equal(language_find(l->chinese), l);
    }
    assert_int_equal(n, 38);
    assert_string_equal(language_find("ZH-hant")->code, "zh-Hant");
    assert_string_equal(language_find("german")->code, "de");
    assert_null(language_find("sv"));
    assert_null(language_find(""));
    assert_true(language_is_chinese(language_find("yue")));
    assert_false(language_is_chinese(language_find("bo")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prompts),
        cmocka_unit_test(test_looks_chinese),
        cmocka_unit_test(test_languages),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
