/*
 * prompt - the user message that makes HY-MT translate, exactly as its authors
 * write it.
 *
 * Two templates: a Chinese one when Chinese is the source or the target, an
 * English one otherwise.  The model is very sensitive to them: another wording
 * gives chatter, repetition, or an answer in Chinese.
 */
#pragma once
#include "base/buf.h"
#include "translate/languages.h"

/* The translate page is built from these lines too: one %s, the target language. */
#define PROMPT_CHINESE "将以下文本翻译为%s，注意只需要输出翻译后的结果，不要额外解释：\n\n"
#define PROMPT_ENGLISH \
    "Translate the following segment into %s, without additional explanation.\n\n"

/* Appends the message. from NULL: it is Chinese if prompt_looks_chinese(). */
void prompt_translate(struct buf *out, const struct language *from, const struct language *to,
                      struct span text);

/* Whether a text has Chinese characters and neither kana nor hangul. */
bool prompt_looks_chinese(struct span text);
