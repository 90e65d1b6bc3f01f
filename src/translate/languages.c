/* languages - see languages.h. */
#include "translate/languages.h"

#include "base/always.h"
#include "base/span.h"

static const struct language languages[] = {
#define X(code, english, chinese) {code, english, chinese},
    LANGUAGES(X)
#undef X
};

const struct language *language_at(size_t i)
{
    return i < COUNT_OF(languages) ? &languages[i] : NULL;
}

const struct language *language_find(const char *word)
{
    struct span s = span_str(word);

    for (const struct language *l = languages; l < languages + COUNT_OF(languages); l++)
        if (span_eq_nocase(s, span_str(l->code)) || span_eq_nocase(s, span_str(l->english)) ||
            span_eq_str(s, l->chinese))
            return l;
    return NULL;
}

bool language_is_chinese(const struct language *language)
{
    return strcmp(language->code, "zh") == 0 || strcmp(language->code, "zh-Hant") == 0 ||
           strcmp(language->code, "yue") == 0;
}
