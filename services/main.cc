// runahead <command>: the one binary. Each command is one file in services/commands.
#include "services/commands/commands.h"

int main(int argc, char** argv) {
  runahead::CommandLine line;
  add_run(line);
  add_serve(line);
  add_coordinator(line);
  add_prefill(line);
  add_decode(line);
  add_tokenize(line);
  add_logits(line);
  add_perplexity(line);
  add_plan(line);
  add_doctor(line);
  add_bench(line);
  return line.run(argc, argv);
}
