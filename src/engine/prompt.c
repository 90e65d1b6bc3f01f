/*
 * prompt - see prompt.h.
 *
 * HY-MT's frame is known by its control tokens (model.h).  libllama's own
 * llama_chat_apply_template() takes it for another model's and puts the user
 * token after the text, so it is not asked.
 *
 * For every other model it is asked, but never with a user's text: each message
 * is rendered as a marker that cannot occur in a template, the result is cut at
 * the markers, template parts are tokenized with control tokens, messages without.
 */
#include "engine/prompt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/utf8.h"

/*
 * libllama splits a text into words with std::regex, which calls itself for each
 * character of a word: fifty thousand letters in a row overflow the stack and end the
 * process.  So a long text is handed over in pieces.
 */
enum { PIECE_BYTES = 4096 };

/* Two private-use characters around a number. */
#define MARK_FORMAT "\xee\x80\x81%zu\xee\x80\x82"
#define MARK_BEGIN "\xee\x80\x81"

void prompt_fini(struct prompt *p)
{
    free(p->tokens);
    *p = (struct prompt){0};
}

static void make_room(struct prompt *p, size_t more)
{
    if (p->room - p->n >= more)
        return;
    p->room = p->n + more + p->room / 2 + 64;
    p->tokens = mem_grow(p->tokens, p->room * sizeof(p->tokens[0]));
}

void prompt_add_token(struct prompt *p, llama_token t)
{
    make_room(p, 1);
    p->tokens[p->n++] = t;
}

/* A letter of the Latin alphabet, or (U+4000 to U+9FFF) of Chinese and Japanese. */
static bool letter_at(const char *p)
{
    unsigned char c = (unsigned char)*p;

    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= 0xe4 && c <= 0xe9);
}

static bool letter_before(const char *p)
{
    const char *begin = (unsigned char)p[-1] < 0x80 ? p - 1 : p - 3;

    return letter_at(begin) && ((unsigned char)*begin < 0x80) == (begin == p - 1);
}

/* Length of the character here that stands between words, or 0. */
static size_t separator(const char *p)
{
    static const char *const marks[] = {" ", "\n", "。", "，", "！", "？", "；", "：", "、"};

    for (size_t i = 0; i < COUNT_OF(marks); i++)
        if (strncmp(p, marks[i], strlen(marks[i])) == 0)
            return strlen(marks[i]);
    return 0;
}

/*
 * How many bytes of a long text are tokenized by themselves: up to a separator with a
 * letter on either side, where every pre-tokenizer cuts too (a separator may belong to
 * the word after it, never to the one before).  A text of thousands of letters without
 * one is cut anyway.
 */
static size_t piece_length(const struct model *m, struct span text)
{
    if (text.n <= PIECE_BYTES || llama_vocab_type(m->vocab) != LLAMA_VOCAB_TYPE_BPE)
        return text.n;
    for (size_t n = PIECE_BYTES - 8; n > 3; n--) {
        size_t mark = separator(text.p + n);
        if (mark && letter_before(text.p + n) && letter_at(text.p + n + mark))
            return n;
    }
    return utf8_whole(text.p, PIECE_BYTES);
}

static int add_piece(struct prompt *p, const struct model *m, struct span text, bool special,
                     bool begin, struct err *err)
{
    make_room(p, text.n / 2 + 8);
    for (;;) {
        int32_t n = llama_tokenize(m->vocab, text.n ? text.p : "", (int32_t)text.n,
                                   p->tokens + p->n, (int32_t)(p->room - p->n), begin, special);
        if (n >= 0) {
            p->n += (size_t)n;
            return 0;
        }
        if (n == INT32_MIN)
            return err_set(err, 400, "the prompt is too long");
        make_room(p, (size_t)-n);
    }
}

int prompt_add_text(struct prompt *p, const struct model *m, struct span text, bool special,
                    bool begin, struct err *err)
{
    do {
        size_t n = piece_length(m, text);
        if (add_piece(p, m, span_of(text.p, n), special, begin, err))
            return -1;
        text = span_of(text.p + n, text.n - n);
        begin = false;
    } while (text.n);
    return 0;
}

static int add_frame(struct prompt *p, const struct model *m, const struct message *messages,
                     size_t n, bool answer, bool open_end, struct err *err)
{
    const struct frame *f = &m->frame;

    prompt_add_token(p, f->bos);
    for (size_t i = 0; i < n; i++) {
        const struct message *msg = &messages[i];
        if (msg->role == ROLE_USER)
            prompt_add_token(p, f->user);
        else if (msg->role == ROLE_ASSISTANT)
            prompt_add_token(p, f->assistant);
        if (prompt_add_text(p, m, msg->text, false, false, err))
            return -1;
        if (msg->role == ROLE_SYSTEM)
            prompt_add_token(p, f->system_end);
        else if (msg->role == ROLE_ASSISTANT && !(open_end && i == n - 1))
            prompt_add_token(p, f->turn_end);
    }
    if (answer && !open_end)
        prompt_add_token(p, f->assistant);
    return 0;
}

/* The conversation as the model's template renders it, with a marker for each text. */
static int render(const struct model *m, const struct message *messages, size_t n, bool answer,
                  struct buf *out, struct err *err)
{
    static const char *const roles[] = {"system", "user", "assistant"};
    struct llama_chat_message *chat = mem_zero(n * sizeof(chat[0]));
    int32_t need = 4096, got;

    for (size_t i = 0; i < n; i++) {
        chat[i].role = roles[messages[i].role];
        chat[i].content = str_fmt(MARK_FORMAT, i);
    }
    const char *template = m->template ? m->template : "chatml";
    for (;;) {
        got =
            llama_chat_apply_template(template, chat, n, answer, buf_room(out, (size_t)need), need);
        if (got <= need)
            break;
        need = got;
    }
    if (got > 0)
        buf_added(out, (size_t)got);
    for (size_t i = 0; i < n; i++)
        free((char *)chat[i].content);
    free(chat);
    return got >= 0 ? 0
                    : err_set(err, 400,
                              "the chat template in %s is not one that libllama knows; use "
                              "/v1/completions with a whole prompt",
                              m->path);
}

/* Where the next marker begins and what it says; false: no more. */
static bool next_mark(struct span s, size_t *at, size_t *length, size_t *number)
{
    const char *hit = memmem(s.p, s.n, MARK_BEGIN, strlen(MARK_BEGIN));
    char whole[32];

    if (!hit)
        return false;
    *number = strtoul(hit + strlen(MARK_BEGIN), NULL, 10);
    *at = (size_t)(hit - s.p);
    *length = (size_t)snprintf(whole, sizeof(whole), MARK_FORMAT, *number);
    return true;
}

static int add_rendered(struct prompt *p, const struct model *m, const struct message *messages,
                        size_t n, bool open_end, struct span text, struct err *err)
{
    const char *bos = llama_vocab_get_add_bos(m->vocab)
                          ? llama_vocab_get_text(m->vocab, llama_vocab_bos(m->vocab))
                          : NULL;
    bool begin = bos && !span_starts(text, span_str(bos)); /* never twice */
    size_t at, length, number;

    while (next_mark(text, &at, &length, &number) && number < n) {
        if ((at || begin) && prompt_add_text(p, m, span_of(text.p, at), true, begin, err))
            return -1;
        begin = false;
        if (prompt_add_text(p, m, messages[number].text, false, false, err))
            return -1;
        text = span_of(text.p + at + length, text.n - at - length);
        if (open_end && number == n - 1)
            return 0;
    }
    return text.n ? prompt_add_text(p, m, text, true, begin, err) : 0;
}

int prompt_add_chat(struct prompt *p, const struct model *m, const struct message *messages,
                    size_t n, bool answer, bool open_end, struct err *err)
{
    struct buf text = {0};

    if (m->has_frame)
        return add_frame(p, m, messages, n, answer, open_end, err);
    int rc = render(m, messages, n, answer && !open_end, &text, err);
    if (rc == 0)
        rc = add_rendered(p, m, messages, n, open_end, buf_span(&text), err);
    buf_fini(&text);
    return rc;
}
