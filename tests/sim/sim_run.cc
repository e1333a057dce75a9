// sim_run: runs seeds of the simulation, or replays one.
//   sim_run --seed 17 -v                    one seed, with the actors' log
//   sim_run --seed 1 --seeds 1000           many; prints each failure with the command that replays it
//   sim_run --seeds 300 --mutant no-lease-sweep
#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <map>

#include "base/log.h"
#include "seed_run.h"

using namespace runahead;
using namespace runahead::test;

int main(int argc, char** argv) {
  uint64_t first = 1, seeds = 1;
  std::string mutant_name = "none";
  bool verbose = false;
  CLI::App app("The deterministic simulation of a Runahead cluster");
  app.add_option("--seed", first, "the first seed");
  app.add_option("--seeds", seeds, "how many");
  app.add_option("--mutant", mutant_name, "plant a bug");
  app.add_flag("-v,--verbose", verbose, "show the actors' log and every seed");
  CLI11_PARSE(app, argc, argv);
  const auto mutant = find_mutant(mutant_name);
  if (!mutant) return std::fprintf(stderr, "%s\n", mutant.error().message.c_str()), 2;
  if (!verbose) log::set_level(log::Level::kOff);

  SeedResult sum;
  std::map<std::string, std::pair<int, uint64_t>> failures;  // kind -> count, first seed
  const auto begin = std::chrono::steady_clock::now();
  for (uint64_t seed = first; seed < first + seeds; ++seed) {
    const SeedResult result = run_seed(seed, *mutant, verbose);
    if (verbose)
      std::printf("seed %llu trace %016llx steps %llu\n", static_cast<unsigned long long>(seed),
                  static_cast<unsigned long long>(result.trace), static_cast<unsigned long long>(result.steps));
    sum.steps += result.steps;
    sum.virtual_seconds += result.virtual_seconds;
    sum.requests += result.requests, sum.finished += result.finished, sum.failed += result.failed;
    sum.cancelled += result.cancelled, sum.broken += result.broken, sum.retried += result.retried;
    sum.kills += result.kills, sum.pauses += result.pauses, sum.cuts += result.cuts;
    sum.corrupted_pages += result.corrupted_pages;
    if (result.failure.empty()) continue;
    auto& [count, first_seed] = failures[result.failure.substr(0, result.failure.find_first_of(" :"))];
    if (count++ == 0) first_seed = seed;
    if (count <= 5) std::printf("%s\n  %s\n", result.failure.c_str(), replay_command(seed, mutant_name).c_str());
  }
  const double wall = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  std::printf(
      "%llu seeds in %.1f s (%.0f a minute): %llu steps, %.0f s virtual, %d requests: %d finished (%d after a retry), "
      "%d failed honestly, %d cancelled, %d broken; %d kills, %d pauses, %d cuts, %lld pages corrupted\n",
      static_cast<unsigned long long>(seeds), wall, 60 * static_cast<double>(seeds) / wall,
      static_cast<unsigned long long>(sum.steps), sum.virtual_seconds, sum.requests, sum.finished, sum.retried,
      sum.failed, sum.cancelled, sum.broken, sum.kills, sum.pauses, sum.cuts,
      static_cast<long long>(sum.corrupted_pages));
  for (const auto& [kind, found] : failures)
    std::printf("%s: %d, first seed %llu\n", kind.c_str(), found.first, static_cast<unsigned long long>(found.second));
  return failures.empty() ? 0 : 1;
}
