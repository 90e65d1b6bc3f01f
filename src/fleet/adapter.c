/* adapter - see adapter.h. */
#include "fleet/adapter.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "fleet/gguf.h"

static const char *const builtin_words[] = {
    "{program}",     "--model",    "{path}",     "--served-model-name", "{name}",     "--listen",
    "unix:{socket}", "--parallel", "{parallel}", "--ctx-size",          "{ctx_size}", "--threads",
    "{threads}",     NULL,
};

/* --port always: its default changed between releases. */
static const char *const llama_server_words[] = {
    "{program}", "--model",   "{path}", "--alias", "{name}",
    "--host",    "127.0.0.1", "--port", "{port}",  NULL,
};

static const struct adapter adapters[] = {
    [CONFIG_ENGINE_BUILTIN] = {.place = ADAPTER_SOCKET, .words = builtin_words},
    [CONFIG_ENGINE_OPENAI] = {.place = ADAPTER_URL, .health_may_lack = true, .lists_models = true},
    [CONFIG_ENGINE_LLAMA_SERVER] = {.place = ADAPTER_PORT,
                                    .lists_models = true,
                                    .words = llama_server_words},
    [CONFIG_ENGINE_COMMAND] = {.place = ADAPTER_PORT,
                               .health_may_lack = true,
                               .lists_models = true},
};

const struct adapter *adapter_of(const struct config_version *v)
{
    ALWAYS(v->engine < COUNT_OF(adapters));
    return &adapters[v->engine];
}

static bool words_have(char *const *words, const char *what)
{
    for (size_t i = 0; words && words[i]; i++)
        if (strstr(words[i], what))
            return true;
    return false;
}

enum adapter_place adapter_place(const struct config_version *v)
{
    const struct adapter *a = adapter_of(v);

    if (v->engine == CONFIG_ENGINE_COMMAND && words_have(v->run, "{socket}"))
        return ADAPTER_SOCKET;
    return a->place;
}

static const char *program_of(const struct config *config, const struct config_version *v)
{
    switch (v->engine) {
    case CONFIG_ENGINE_BUILTIN:
        return config->engine_program ? config->engine_program : "segue-engine";
    case CONFIG_ENGINE_LLAMA_SERVER:
        return v->program ? v->program : "llama-server";
    case CONFIG_ENGINE_COMMAND:
        return v->run && v->run[0] ? v->run[0] : "";
    default:
        return NULL;
    }
}

/* As execvp(3) would look for it. */
static bool executable(const char *program)
{
    struct stat st;
    const char *path = getenv("PATH");

    if (strchr(program, '/'))
        return access(program, X_OK) == 0 && stat(program, &st) == 0 && S_ISREG(st.st_mode);
    struct span rest = span_str(path ? path : "/bin:/usr/bin");
    while (rest.n > 0) {
        size_t n = span_index(rest, ':');
        char *file = str_fmt(SPAN_FMT "/%s", (int)n, rest.p, program);
        bool found = access(file, X_OK) == 0 && stat(file, &st) == 0 && S_ISREG(st.st_mode);

        free(file);
        if (found)
            return true;
        n = n < rest.n ? n + 1 : n;
        rest = span_of(rest.p + n, rest.n - n);
    }
    return false;
}

static int check_program(const struct config *config, const struct config_version *v,
                         struct err *err)
{
    const char *program = program_of(config, v);
    const char *setting = v->engine == CONFIG_ENGINE_BUILTIN   ? "engine_program"
                          : v->engine == CONFIG_ENGINE_COMMAND ? "run"
                                                               : "program";

    if (!program[0])
        return err_set(err, 400, "version %s has no command line; set its `run`", v->name);
    /* A relative path with a slash is meant from the configuration's folder. */
    char *from_folder = NULL;
    if (program[0] != '/' && strchr(program, '/') && config->file && strrchr(config->file, '/'))
        from_folder = str_fmt("%.*s/%s", (int)(strrchr(config->file, '/') - config->file),
                              config->file, program);
    bool there = executable(from_folder ? from_folder : program);
    free(from_folder);
    if (there)
        return 0;
    return err_set(err, 400, "cannot execute %s: %s (setting: `%s`)", program,
                   strchr(program, '/') ? strerror(errno) : "it is not on PATH", setting);
}

int adapter_check(const struct config *config, const struct config_version *v, struct err *err)
{
    if (v->engine == CONFIG_ENGINE_OPENAI)
        return v->url ? 0 : err_set(err, 400, "version %s has no `url`", v->name);
    if (v->engine == CONFIG_ENGINE_BUILTIN || v->engine == CONFIG_ENGINE_LLAMA_SERVER) {
        if (!v->path)
            return err_set(err, 400, "version %s has no `path` to a model file", v->name);
        if (gguf_check(v->path, err) != 0)
            return -1;
    }
    if (v->engine == CONFIG_ENGINE_COMMAND && !words_have(v->run, "{port}") &&
        !words_have(v->run, "{socket}") && !words_have(v->args, "{port}"))
        return err_set(err, 400,
                       "version %s: its command line names neither {port} nor {socket}, so nobody "
                       "would know where it listens; add one to `run`",
                       v->name);
    return check_program(config, v, err);
}

/* The value of a placeholder, or false if the name means nothing to this engine. */
static bool value_of(struct span name, const struct config *config, const struct config_version *v,
                     const char *address, struct buf *out)
{
    const char *port = strrchr(address, ':');
    bool own = v->engine == CONFIG_ENGINE_COMMAND; /* words from the configuration */

    if (span_eq_str(name, "name"))
        buf_add_str(out, v->served_model_name);
    else if (span_eq_str(name, "port") && strncmp(address, "unix:", 5) != 0)
        buf_add_str(out, port + 1);
    else if (span_eq_str(name, "socket") && strncmp(address, "unix:", 5) == 0)
        buf_add_str(out, address + 5);
    else if (own)
        return false;
    else if (span_eq_str(name, "program"))
        buf_add_str(out, program_of(config, v));
    else if (span_eq_str(name, "path"))
        buf_add_str(out, v->path);
    else if (span_eq_str(name, "parallel"))
        buf_add_u64(out, v->parallel);
    else if (span_eq_str(name, "ctx_size"))
        buf_add_u64(out, v->ctx_size);
    else if (span_eq_str(name, "threads"))
        buf_add_u64(out, v->threads); /* 0: the engine counts its cores */
    else
        return false;
    return true;
}

/* Braces that are no placeholder (JSON in an argument) stay as they are. */
static char *expand(const char *word, const struct config *config, const struct config_version *v,
                    const char *address)
{
    struct buf out = {0};

    for (const char *p = word; *p;) {
        const char *end = *p == '{' ? strchr(p, '}') : NULL;

        if (end && value_of(span_of(p + 1, (size_t)(end - p - 1)), config, v, address, &out))
            p = end + 1;
        else
            buf_add_char(&out, *p++);
    }
    return buf_take(&out);
}

static size_t count(const char *const *words)
{
    size_t n = 0;

    while (words && words[n])
        n++;
    return n;
}

char **adapter_argv(const struct config *config, const struct config_version *v,
                    const char *address)
{
    const char *const *base = adapter_of(v)->words;
    const char *const *args = (const char *const *)v->args;

    if (!base)
        base = (const char *const *)v->run;
    char **argv = mem_zero((count(base) + count(args) + 1) * sizeof(*argv));
    size_t n = 0;
    for (size_t i = 0; base && base[i]; i++)
        argv[n++] = expand(base[i], config, v, address);
    for (size_t i = 0; args && args[i]; i++)
        argv[n++] = expand(args[i], config, v, address);
    return argv;
}

void words_free(char **words)
{
    for (size_t i = 0; words && words[i]; i++)
        free(words[i]);
    free(words);
}

char *words_join(char *const *words)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "@%+=:,./_-#";
    struct buf out = {0};

    for (size_t i = 0; words[i]; i++) {
        if (i)
            buf_add_char(&out, ' ');
        if (words[i][0] && words[i][strspn(words[i], plain)] == '\0') {
            buf_add_str(&out, words[i]);
            continue;
        }
        buf_add_char(&out, '\'');
        for (const char *p = words[i]; *p; p++)
            if (*p == '\'')
                buf_add_str(&out, "'\\''");
            else
                buf_add_char(&out, *p);
        buf_add_char(&out, '\'');
    }
    return buf_take(&out);
}
