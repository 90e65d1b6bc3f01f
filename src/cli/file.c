/*
 * file - what can be said without a server: about a configuration, about us.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "cli/internal.h"
#include "config/config.h"

/* Files that the configuration names and that are not there (yet). */
static void warn_missing(const struct config *c, const char *file, struct buf *out)
{
    for (size_t i = 0; i < c->nmodels; i++)
        for (size_t j = 0; j < c->models[i].nversions; j++) {
            const struct config_version *v = &c->models[i].versions[j];
            const char *why = NULL;
            struct stat st;

            if (v->path && (stat(v->path, &st) < 0 || access(v->path, R_OK) < 0))
                why = strerror(errno);
            else if (v->path && !S_ISREG(st.st_mode))
                why = "it is not a regular file";
            if (why)
                buf_addf(out, "%s: warning: %s@%s: %s: %s\n", file, c->models[i].name, v->name,
                         v->path, why);
        }
}

/* {"ok": true, "file": "segue.yaml", "models": 1, "messages": ["...", ...]} */
static void say_checked(const struct config *c, const char *file, struct buf *said)
{
    json_t *messages = json_array(), *out;

    for (const char *at = buf_cstr(said); *at;) {
        size_t n = strcspn(at, "\n");

        json_array_append_new(messages, json_stringn(at, n));
        at += n + (at[n] == '\n');
    }
    out = json_pack("{s:b, s:s, s:I, s:o}", "ok", c != NULL, "file", file, "models",
                    c ? (json_int_t)c->nmodels : 0, "messages", messages);
    say_json(out);
    json_decref(out);
}

int run_config_check(const struct args *args)
{
    const char *file = args->nwords ? args->words[0] : args->options[OPTION_CONFIG];
    struct buf said = {0};

    if (!file)
        file = "segue.yaml";
    struct config *c = config_load(file, &said);
    if (c)
        warn_missing(c, file, &said);
    if (args_has(args, OPTION_JSON)) {
        say_checked(c, file, &said);
    } else {
        fwrite(buf_cstr(&said), 1, buf_pending(&said), stderr);
        if (c)
            printf("%s: ok (%zu %s)\n", file, c->nmodels, c->nmodels == 1 ? "model" : "models");
    }
    int code = c ? CLI_DONE : CLI_USAGE;
    config_free(c);
    buf_fini(&said);
    return code;
}

int run_config_keys(const struct args *args)
{
    struct buf page = {0};

    config_describe(&page);
    fwrite(buf_head(&page), 1, buf_pending(&page), stdout);
    buf_fini(&page);
    return CLI_DONE;
}

int run_version(const struct args *args)
{
    if (args_has(args, OPTION_JSON))
        printf("{\"version\":\"%s\"}\n", SEGUE_VERSION);
    else
        printf("segue %s\n", SEGUE_VERSION);
    return CLI_DONE;
}
