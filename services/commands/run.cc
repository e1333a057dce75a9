// runahead run: one prompt through a whole cluster of real processes (or, with --in-process, through the same actors in this
// one process over the memory transport).
#include <fmt/format.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <optional>

#include "base/json_text.h"
#include "base/log.h"
#include "services/cluster/in_process_cluster.h"
#include "services/cluster/local_cluster.h"
#include "services/commands/commands.h"
#include "services/commands/input.h"
#include "services/commands/output.h"
#include "services/commands/run_report.h"
#include "services/engine/progress_bar.h"
#include "services/engine/text_codec_loading.h"
#include "services/http/http_client.h"

namespace runahead {
namespace {

using nlohmann::json;
constexpr auto kPingTimeout = std::chrono::seconds(60);  // the gateway pings every second

struct RunOptions {
  LocalClusterOptions cluster;
  PromptOptions prompt;
  std::string strategy = "auto";
  std::vector<int32_t> cuts;
  int max_tokens = 64;
  std::optional<double> temperature;
  uint64_t seed = 0;
  bool in_process = false;
};

json request_body(const RunOptions& options, const Prompt& prompt) {
  json body = {{"model", "default"},
               {"max_tokens", options.max_tokens},
               {"seed", options.seed},
               {"stream", true},
               {"stream_options", {{"include_usage", true}}},
               {"return_token_ids", true},
               {"return_progress", true}};
  if (options.temperature) body["temperature"] = *options.temperature;
  if (options.cuts.empty()) {
    body["runahead"]["strategy"] = options.strategy;
  } else {
    body["runahead"]["cuts"] = options.cuts;
  }
  if (prompt.chat) {
    body["messages"] = json::array({{{"role", "user"}, {"content", prompt.text}}});
  } else if (!prompt.token_ids.empty()) {
    body["prompt"] = prompt.token_ids;
  } else {
    body["prompt"] = prompt.text;
  }
  return body;
}

// Follows the event stream: prints text as it comes unless the output is JSON.
class AnswerReader {
 public:
  explicit AnswerReader(const CommonOptions& common) : print_(!common.json()), bar_("prefill", !common.quiet) {}

  bool take(std::string_view event, std::string_view data) {
    if (data == "[DONE]") return false;
    if (await_stop_signal(std::chrono::milliseconds(0))) {  // events come a few times a second, also during prefill
      error_ = Error{ErrorCode::kCancelled, "interrupted", ""};
      return false;
    }
    const json chunk = json::parse(data, nullptr, false);
    if (event == "error" || (chunk.is_object() && chunk.contains("error"))) {
      error_ = error_of({.status = 500, .body = std::string(data)});
      return false;
    }
    if (chunk.contains("prompt_progress")) show_progress(chunk["prompt_progress"]);
    if (chunk.contains("choices") && !chunk["choices"].empty()) take_choice(chunk["choices"][0]);
    if (chunk.contains("usage") && chunk["usage"].is_object()) {
      report_.prompt_tokens = chunk["usage"].value("prompt_tokens", 0);
      report_.runahead = chunk["usage"].value("runahead", json::object());
    }
    return !error_;
  }
  Result<RunReport> finish(double total_seconds) {
    if (error_) return std::unexpected(*error_);
    if (report_.finish_reason.empty()) return fail(ErrorCode::kInternal, "the answer ended before it was complete");
    report_.total_seconds = total_seconds;
    return report_;
  }

 private:
  void take_choice(const json& choice) {
    const json delta = choice.value("delta", json::object());
    const std::string text = delta.contains("content") && delta["content"].is_string()
                                 ? delta["content"].get<std::string>()
                                 : choice.value("text", "");
    if (choice.contains("token_ids") && choice["token_ids"].is_array())
      for (const json& id : choice["token_ids"]) report_.token_ids.push_back(id.get<TokenId>());
    if (choice.contains("finish_reason") && choice["finish_reason"].is_string())
      report_.finish_reason = choice["finish_reason"];
    if (text.empty()) return;
    bar_.clear();
    report_.text += text;
    if (print_ && !print_text(text)) error_ = finish_output().error();  // nobody reads it: no use in going on
  }
  void show_progress(const json& progress) {
    const double total = progress.value("total", 0.0), done = progress.value("processed", 0.0);
    if (total > 0) bar_.show(done / total, fmt::format("of {:.0f} tokens", total));
  }

  bool print_;
  ProgressBar bar_;
  RunReport report_;
  std::optional<Error> error_;
};

Result<RunReport> ask(const std::string& address, const RunOptions& options, const Prompt& prompt,
                      const CommonOptions& common) {
  const HttpClient client(address, kPingTimeout);
  AnswerReader reader(common);
  const auto begin = std::chrono::steady_clock::now();
  const auto response = TRY(client.post_stream(prompt.chat ? "/v1/chat/completions" : "/v1/completions",
                                               to_text(request_body(options, prompt)),
                                               [&](auto event, auto data) { return reader.take(event, data); }));
  if (response.status != 200) return std::unexpected(error_of(response));
  return reader.finish(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
}

Result<void> run(const RunOptions& options, const CommonOptions& common) {
  if ((options.strategy == "searched" || options.strategy == "predicted") && options.cluster.split_table.empty())
    return fail(ErrorCode::kInvalidArgument,
                "the strategy '" + options.strategy +
                    "' needs a table of cuts: give one that `runahead plan search` made "
                    "with --split-table",
                "strategy");
  const Prompt prompt = TRY(read_prompt(options.prompt));
  if (prompt.chat) TRY(check_chat_template(options.cluster.engine.model, options.cluster.chat_template));
  LocalClusterOptions cluster_options = options.cluster;
  cluster_options.progress = !common.quiet && stderr_takes_bars();
  cluster_options.log_format = common.log_format;
  cluster_options.log_level = common.effective_log_level();
  if (cluster_options.log_level == "info") cluster_options.log_level = "warn";  // the answer is what is asked for
  const auto answer = [&](const std::string& address) { return ask(address, options, prompt, common); };
  RunReport report;
  if (options.in_process) {
    log::set_level(std::string_view(cluster_options.log_level));  // the actors' lines are this process's own
    block_stop_signals();  // of the cluster's threads, too; looked for between two events of the answer
    const auto cluster = TRY(InProcessCluster::start(cluster_options));
    report = TRY(answer(cluster->http_address()));
  } else {
    LocalCluster cluster = TRY(LocalCluster::start(cluster_options));
    report = TRY(answer(cluster.http_address()));
  }
  if (common.json()) {
    print_json(to_json(report));
  } else {
    print_text("\n");
    if (!common.quiet) std::fprintf(stderr, "%s\n", summary_line(report).c_str());
  }
  return {};
}

}  // namespace

void add_run(CommandLine& line) {
  auto options = std::make_shared<RunOptions>();
  CLI::App* command = line.add("run", "run one prompt through a whole cluster on this machine",
                               [options](const CommonOptions& common) { return run(*options, common); });
  add_cluster_flags(*command, options->cluster);
  add_generation_flags(*command, options->cluster.generation);
  add_prompt_flags(*command, options->prompt);
  add_partition_flags(*command, options->strategy, options->cuts);
  command->add_option("--max-tokens", options->max_tokens, "tokens to generate at most")
      ->check(whole_number(1, 1 << 20));
  command
      ->add_option("--temperature", options->temperature,
                   "0: greedy; default: the model's own, see --generation-defaults")
      ->check(real_number(0, 2));
  command->add_option("--seed", options->seed, "of the sampling")->check(whole_number(0, INT64_MAX));
  command->add_flag("--in-process", options->in_process, "all actors in this process, over the memory transport");
}

}  // namespace runahead
