/* options - see options.h. */
#include "engine/options.h"

#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/span.h"

enum option_kind { TEXT, NUMBER, FLAG, LISTEN, HELP, VERSION };

/* name, value's name, kind, member, least, most, help */
// clang-format off
static const struct option {
    const char *name, *value;
    enum option_kind kind;
    size_t member;
    int least, most;
    const char *help;
} table[] = {
#define M(m) offsetof(struct options, m)
    {"model", "FILE", TEXT, M(model), 0, 0, "the GGUF file (needed)"},
    {"served-model-name", "NAME", TEXT, M(name), 0, 0, "model name in answers (default: the file's name)"},
    {"listen", "ADDRESS", LISTEN, 0, 0, 0, "127.0.0.1:PORT or unix:PATH; may stand several times (default 127.0.0.1:8000)"},
    {"parallel", "N", NUMBER, M(parallel), 1, PARALLEL_MAX, "streams that are decoded together (default 4)"},
    {"ctx-size", "N", NUMBER, M(context), 0, 1 << 20, "tokens of one stream, prompt and answer (default: as trained, at most 4096)"},
    {"threads", "N", NUMBER, M(threads), 0, 512, "threads that compute (default: one for each physical core, fewer below 32 MB of weights each)"},
    {"queue", "N", NUMBER, M(queue), 0, 1 << 20, "streams that may wait for a slot; more get 429 (default 256)"},
    {"batch", "N", NUMBER, M(batch), 32, 8192, "tokens of one step at most (default 512)"},
    {"stall-ms", "N", NUMBER, M(stall_ms), 1, 60000, "how long running streams may wait for new prompts in a step (default 50)"},
    {"gpu-layers", "N", NUMBER, M(gpu_layers), -1, 100000, "layers on the GPU, if a GPU back-end is there; -1 for all (default -1)"},
    {"poll", "N", NUMBER, M(poll), 0, 100, "how long idle threads spin between two graphs, 0 to 100 (default 50)"},
    {"shutdown-timeout", "SECONDS", NUMBER, M(shutdown_s), 0, 86400, "after SIGTERM, running streams may go on this long (default 30)"},
    {"backends", "FOLDER", TEXT, M(backends), 0, 0, "where libggml-cpu-*.so and the like are (default: beside libllama)"},
    {"kv-unified", NULL, FLAG, M(unified), 1, 0, "one pool of cells for all streams instead of one for each"},
    {"no-mmap", NULL, FLAG, M(mmap), 0, 0, "read the file into memory instead of mapping it"},
    {"verbose", NULL, FLAG, M(verbose), 1, 0, "pass on what libllama says"},
    {"help", NULL, HELP, 0, 0, 0, "print this"},
    {"version", NULL, VERSION, 0, 0, 0, "print the version"},
#undef M
};
// clang-format on

static void print_help(void)
{
    char left[64];

    puts("usage: segue-engine --model FILE [options]\n\n"
         "Serves one GGUF model with OpenAI's API: /v1/completions, /v1/chat/completions,\n"
         "/v1/models, /health, /metrics, /tokenize, /detokenize, /props.\n");
    for (size_t i = 0; i < COUNT_OF(table); i++) {
        snprintf(left, sizeof(left), "--%s%s%s", table[i].name, table[i].value ? " " : "",
                 table[i].value ? table[i].value : "");
        printf("  %-28s %s\n", left, table[i].help);
    }
}

static const struct option *find(struct span name)
{
    for (size_t i = 0; i < COUNT_OF(table); i++)
        if (span_eq_str(name, table[i].name))
            return &table[i];
    return NULL;
}

static int set_number(struct options *o, const struct option *opt, const char *text,
                      struct err *err)
{
    char *end;
    long v = strtol(text, &end, 10);

    if (end == text || *end || v < opt->least || v > opt->most)
        return err_set(err, 400, "--%s is \"%s\"; it must be a number from %d to %d", opt->name,
                       text, opt->least, opt->most);
    *(int *)((char *)o + opt->member) = (int)v;
    return 0;
}

static int set(struct options *o, const struct option *opt, const char *value, struct err *err)
{
    switch (opt->kind) {
    case NUMBER:
        return set_number(o, opt, value, err);
    case FLAG:
        *(bool *)((char *)o + opt->member) = opt->least != 0;
        return 0;
    case LISTEN:
        if (o->nlisten == LISTEN_MAX)
            return err_set(err, 400, "--listen stands more than %d times", LISTEN_MAX);
        o->listen[o->nlisten++] = value;
        return 0;
    default:
        if (!*value)
            return err_set(err, 400, "--%s is empty", opt->name);
        *(const char **)((char *)o + opt->member) = value;
        return 0;
    }
}

static int check(struct options *o, struct err *err)
{
    if (!o->model)
        return err_set(err, 400, "--model FILE is missing");
    if (!o->name) {
        const char *slash = strrchr(o->model, '/');
        o->name = slash ? slash + 1 : o->model;
    }
    if (o->nlisten == 0)
        o->listen[o->nlisten++] = "127.0.0.1:8000";
    if (o->batch < o->parallel)
        return err_set(err, 400,
                       "--batch %d is smaller than --parallel %d; each stream needs a "
                       "token in a step",
                       o->batch, o->parallel);
    if (o->context && (long long)o->context * o->parallel > INT_MAX)
        return err_set(err, 400, "--ctx-size %d times --parallel %d is too large", o->context,
                       o->parallel);
    return 0;
}

enum options_result options_read(struct options *o, int argc, char **argv, struct err *err)
{
    *o = (struct options){.parallel = 4,
                          .queue = 256,
                          .batch = 512,
                          .stall_ms = 50,
                          .poll = 50,
                          .gpu_layers = -1,
                          .shutdown_s = 30,
                          .mmap = true};
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "--", 2) != 0) {
            err_set(err, 400, "\"%s\" is not an option; options begin with --", argv[i]);
            return OPTIONS_WRONG;
        }
        struct span name = span_str(argv[i] + 2);
        size_t equals = span_index(name, '=');
        const char *value = equals < name.n ? name.p + equals + 1 : NULL;
        name.n = equals;
        const struct option *opt = find(name);
        if (!opt) {
            err_set(err, 400, "there is no option %.60s; --help lists them", argv[i]);
            return OPTIONS_WRONG;
        }
        if (opt->kind == HELP) {
            print_help();
            return OPTIONS_DONE;
        }
        if (opt->kind == VERSION) {
            puts("segue-engine " SEGUE_VERSION);
            return OPTIONS_DONE;
        }
        if (opt->kind == FLAG && value) {
            err_set(err, 400, "--%s takes no value", opt->name);
            return OPTIONS_WRONG;
        }
        if (opt->kind != FLAG && !value && i + 1 < argc)
            value = argv[++i];
        if (opt->kind != FLAG && !value) {
            err_set(err, 400, "--%s needs a value: --%s %s", opt->name, opt->name, opt->value);
            return OPTIONS_WRONG;
        }
        if (set(o, opt, value, err))
            return OPTIONS_WRONG;
    }
    return check(o, err) ? OPTIONS_WRONG : OPTIONS_RUN;
}
