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
static void warn_missing(const struct config *c, const char *file)
{
    for (size_t i = 0; i < c->nmodels; i++)
        for (size_t j = 0; j < c->models[i].nversions; j++) {
            const struct config_version *v = &c->models[i].versions[j];
            struct stat st;
            const char *why = !v->path ? NULL
                              : stat(v->path, &st) < 0 || access(v->path, R_OK) < 0
                                  ? strerror(errno)
                              : !S_ISREG(st.st_mode) ? "it is not a regular file"
                                                     : NULL;
            if (why)
                fprintf(stderr, "%s: warning: %s@%s: %s: %s\n", file, c->models[i].name, v->name,
                        v->path, why);
        }
}

int run_config_check(const struct args *args)
{
    const char *file = args->nwords ? args->words[0] : args->options[OPTION_CONFIG];
    struct buf diagnostics = {0};

    if (!file)
        file = "segue.yaml";
    struct config *c = config_load(file, &diagnostics);
    fwrite(buf_cstr(&diagnostics), 1, buf_pending(&diagnostics), stderr);
    buf_fini(&diagnostics);
    if (!c)
        return CLI_USAGE;
    warn_missing(c, file);
    printf("%s: ok (%zu %s)\n", file, c->nmodels, c->nmodels == 1 ? "model" : "models");
    config_free(c);
    return CLI_DONE;
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
