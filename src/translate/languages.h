/*
 * languages - the 38 languages that HY-MT translates between.
 *
 * One row each: code (BCP 47), English name, Chinese name.  The prompts, the
 * command line and the translate page show the names of these rows.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>

// clang-format off
/*    code       English                Chinese */
#define LANGUAGES(X)                                    \
    X("zh",      "Chinese",             "中文")         \
    X("en",      "English",             "英语")         \
    X("fr",      "French",              "法语")         \
    X("pt",      "Portuguese",          "葡萄牙语")     \
    X("es",      "Spanish",             "西班牙语")     \
    X("ja",      "Japanese",            "日语")         \
    X("tr",      "Turkish",             "土耳其语")     \
    X("ru",      "Russian",             "俄语")         \
    X("ar",      "Arabic",              "阿拉伯语")     \
    X("ko",      "Korean",              "韩语")         \
    X("th",      "Thai",                "泰语")         \
    X("it",      "Italian",             "意大利语")     \
    X("de",      "German",              "德语")         \
    X("vi",      "Vietnamese",          "越南语")       \
    X("ms",      "Malay",               "马来语")       \
    X("id",      "Indonesian",          "印尼语")       \
    X("tl",      "Filipino",            "菲律宾语")     \
    X("hi",      "Hindi",               "印地语")       \
    X("zh-Hant", "Traditional Chinese", "繁体中文")     \
    X("pl",      "Polish",              "波兰语")       \
    X("cs",      "Czech",               "捷克语")       \
    X("nl",      "Dutch",               "荷兰语")       \
    X("km",      "Khmer",               "高棉语")       \
    X("my",      "Burmese",             "缅甸语")       \
    X("fa",      "Persian",             "波斯语")       \
    X("gu",      "Gujarati",            "古吉拉特语")   \
    X("ur",      "Urdu",                "乌尔都语")     \
    X("te",      "Telugu",              "泰卢固语")     \
    X("mr",      "Marathi",             "马拉地语")     \
    X("he",      "Hebrew",              "希伯来语")     \
    X("bn",      "Bengali",             "孟加拉语")     \
    X("ta",      "Tamil",               "泰米尔语")     \
    X("uk",      "Ukrainian",           "乌克兰语")     \
    X("bo",      "Tibetan",             "藏语")         \
    X("kk",      "Kazakh",              "哈萨克语")     \
    X("mn",      "Mongolian",           "蒙古语")       \
    X("ug",      "Uyghur",              "维吾尔语")     \
    X("yue",     "Cantonese",           "粤语")
// clang-format on

struct language {
    const char *code;
    const char *english;
    const char *chinese;
};

/* Row i, or NULL after the last. */
const struct language *language_at(size_t i);

/* By code, English name or Chinese name (ASCII case ignored); NULL if none. */
const struct language *language_find(const char *word);

/* Written with Chinese characters: Chinese, Traditional Chinese, Cantonese. */
bool language_is_chinese(const struct language *language);
