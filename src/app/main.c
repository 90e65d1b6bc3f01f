/*
 * segue - one executable: the manager (`serve`), the gateway (`gateway`, started
 * by the manager only), and the commands that talk to a running manager.
 */
#include <string.h>

#include "app/manager.h"
#include "cli/cli.h"
#include "gateway/gateway.h"

int main(int argc, char **argv)
{
    const char *command = cli_command(argc, argv);

    if (argc > 1 && strcmp(argv[1], "gateway") == 0)
        return gateway_main(argc - 1, argv + 1);
    if (command && strcmp(command, "serve") == 0)
        return manager_main(argc, argv);
    return cli_main(argc, argv);
}
