/* model - see model.h. */
#include "engine/model.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "engine/backend.h"
#include "engine/weights.h"

llama_token model_control_token(const struct model *m, const char *text)
{
    for (llama_token t = 0; t < m->ntokens; t++)
        if (llama_vocab_get_attr(m->vocab, t) & LLAMA_TOKEN_ATTR_CONTROL &&
            strcmp(llama_vocab_get_text(m->vocab, t), text) == 0)
            return t;
    return -1;
}

static void find_frame(struct model *m)
{
    struct frame *f = &m->frame;

    f->bos = model_control_token(m, "<｜hy_begin▁of▁sentence｜>");
    f->user = model_control_token(m, "<｜hy_User｜>");
    f->assistant = model_control_token(m, "<｜hy_Assistant｜>");
    f->system_end = model_control_token(m, "<｜hy_place▁holder▁no▁3｜>");
    f->turn_end = model_control_token(m, "<｜hy_place▁holder▁no▁2｜>");
    m->has_frame =
        f->bos >= 0 && f->user >= 0 && f->assistant >= 0 && f->system_end >= 0 && f->turn_end >= 0;
}

static void find_longest_piece(struct model *m)
{
    char piece[1024];

    m->longest_piece = 1;
    for (llama_token t = 0; t < m->ntokens; t++) {
        size_t n = model_piece(m, t, true, piece, sizeof(piece));
        if ((int32_t)n > m->longest_piece)
            m->longest_piece = (int32_t)n;
    }
}

/* What libllama cannot be asked to continue as text. */
static int check_kind(const struct model *m, struct err *err)
{
    if (llama_model_has_encoder(m->llama) || !llama_model_has_decoder(m->llama))
        return err_set(err, 422,
                       "cannot serve %s: its architecture (%s) has an encoder; only decoder models "
                       "generate text here",
                       m->path, m->architecture);
    if (llama_model_is_diffusion(m->llama))
        return err_set(err, 422, "cannot serve %s: it is a diffusion model", m->path);
    if (llama_vocab_type(m->vocab) == LLAMA_VOCAB_TYPE_NONE || m->ntokens <= 0)
        return err_set(err, 422, "cannot serve %s: it has no vocabulary", m->path);
    return 0;
}

struct model *model_load(const char *path, const struct model_options *o, struct err *err)
{
    struct weights file;
    struct llama_model_params params = llama_model_default_params();

    if (weights_check(path, &file, err))
        return NULL;
    params.n_gpu_layers = o->gpu_layers;
    params.load_mode = o->mmap ? LLAMA_LOAD_MODE_AUTO : LLAMA_LOAD_MODE_NONE;
    params.progress_callback = o->go_on;
    params.progress_callback_user_data = o->arg;

    backend_words_clear();
    struct llama_model *llama = llama_model_load_from_file(path, params);
    if (!llama) {
        char words[BACKEND_WORDS_MAX];
        backend_words(words);
        err_set(err, 422, "libllama cannot load %s: %s", path,
                words[0] ? words : "it gave no reason (the load may have been ended)");
        return NULL;
    }
    struct model *m = NEW(struct model);
    m->refs = 1;
    m->llama = llama;
    m->path = str_dup(path);
    m->vocab = llama_model_get_vocab(llama);
    m->ntokens = llama_vocab_n_tokens(m->vocab);
    m->trained = llama_model_n_ctx_train(llama);
    m->file_bytes = file.bytes;
    m->loaded = (int64_t)time(NULL);
    m->template = llama_model_chat_template(llama, NULL);
    llama_model_meta_val_str(llama, "general.architecture", m->architecture,
                             sizeof(m->architecture));
    if (check_kind(m, err)) {
        model_unref(m);
        return NULL;
    }
    find_frame(m);
    find_longest_piece(m);
    return m;
}

struct model *model_ref(struct model *m)
{
    __atomic_add_fetch(&m->refs, 1, __ATOMIC_RELAXED);
    return m;
}

void model_unref(struct model *m)
{
    if (!m || __atomic_sub_fetch(&m->refs, 1, __ATOMIC_ACQ_REL))
        return;
    llama_model_free(m->llama);
    free(m->path);
    free(m);
}

size_t model_piece(const struct model *m, llama_token t, bool special, char *out, size_t room)
{
    int32_t n = llama_token_to_piece(m->vocab, t, out, (int32_t)room, 0, special);

    return n > 0 ? (size_t)n : 0;
}
