// One function a command: each adds itself with its flags. The list in main.cc is the list of commands.
#pragma once

#include "services/commands/command_line.h"

namespace runahead {

void add_run(CommandLine& line);
void add_serve(CommandLine& line);
void add_coordinator(CommandLine& line);
void add_prefill(CommandLine& line);
void add_decode(CommandLine& line);
void add_tokenize(CommandLine& line);
void add_logits(CommandLine& line);
void add_perplexity(CommandLine& line);
void add_plan(CommandLine& line);
void add_doctor(CommandLine& line);
void add_bench(CommandLine& line);
void add_certs(CommandLine& line);
void add_trace(CommandLine& line);
void add_client(CommandLine& line);  // status, submit, wait, jobs, cancel
void add_logs(CommandLine& line);
void add_top(CommandLine& line);
void add_describe(CommandLine& line);  // config, completion, man

}  // namespace runahead
