#include "services/commands/input.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/limits.h"
#include "base/token_range.h"
#include "base/utf8.h"
#include "model/transformer/transformer.h"
#include "planner/strategies.h"
#include "transport/kv/select_transport.h"

namespace runahead {
namespace {

constexpr size_t kReadBytes = 64 << 10;

struct Descriptor {
  int fd;
  ~Descriptor() {
    if (fd >= 0) close(fd);
  }
};

template <class Number>
std::optional<Number> parse_number(std::string_view text) {
  Number number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size() ? std::optional(number) : std::nullopt;
}

template <class Parse>
CLI::Validator parses(Parse parse) {  // by the same function that will read it
  return CLI::Validator(
      [parse](std::string& text) {
        const auto parsed = parse(text);
        return parsed ? std::string() : parsed.error().message;
      },
      "");
}

std::string prompt_name(const std::string& path) { return path == "-" ? "standard input" : path; }

// A prompt that is no text would come to the model as something else than was meant, in silence.
Result<std::string> checked_prompt(std::string text, const std::string& name) {
  if (text.empty()) return fail(ErrorCode::kInvalidArgument, name + " is empty: a prompt needs some text", "prompt");
  if (const size_t valid = utf8_valid_prefix(text); valid < text.size())
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("{} is not UTF-8 (byte {} is 0x{:02x}): convert it, e.g. with `iconv -f latin1 -t utf-8`, "
                            "or give token ids by --token-ids-file",
                            name, valid + 1, static_cast<unsigned char>(text[valid])),
                "prompt");
  return text;
}

// What is piped in ends with the newline of `echo`, which is not part of a message.
Result<std::string> piped_prompt(bool raw) {
  std::string text = TRY(read_text_file("-"));
  if (!raw && text.ends_with('\n')) text.pop_back();
  if (!raw && text.ends_with('\r')) text.pop_back();
  return checked_prompt(std::move(text), "standard input");
}

}  // namespace

CLI::Validator whole_number(int64_t min, int64_t max) {
  return CLI::Validator(
      [=](std::string& text) {
        const auto number = parse_number<int64_t>(text);
        if (!number || *number < min || *number > max)
          return fmt::format("'{}' is not a whole number from {} to {}", text, min, max);
        text = std::to_string(*number);  // 010 is ten
        return std::string();
      },
      fmt::format("{} to {}", min, max));
}

CLI::Validator real_number(double min, double max) {
  return CLI::Validator(
      [=](std::string& text) {
        const auto number = parse_number<double>(text);
        const bool fits = number && std::isfinite(*number) && *number >= min && *number <= max;
        return fits ? std::string() : fmt::format("'{}' is not a number from {} to {}", text, min, max);
      },
      fmt::format("{} to {}", min, max));
}

void add_prompt_flags(CLI::App& command, PromptOptions& options) {
  command.add_option("-p,--prompt", options.text,
                     "the prompt: one user message; - or, without any prompt flag, standard input");
  command.add_option("--prompt-file", options.file,
                     "read the prompt from a file, - for standard input; without it see -p");
  command.add_option("--token-ids-file", options.token_ids_file,
                     "a JSON array of token ids, taken as they are; without it see -p");
  command.add_flag("--raw", options.raw, "take the prompt as it is, without the chat template");
}

Result<Prompt> read_prompt(const PromptOptions& options) {
  const int given = options.text.has_value() + options.file.has_value() + options.token_ids_file.has_value();
  if (given > 1 || (given == 0 && isatty(STDIN_FILENO)))
    return fail(ErrorCode::kInvalidArgument,
                "give the prompt by one of --prompt, --prompt-file and --token-ids-file, or on standard input",
                "prompt");
  Prompt prompt{.chat = !options.raw && !options.token_ids_file};
  if (options.token_ids_file) {
    prompt.token_ids = TRY(read_token_ids(*options.token_ids_file));
  } else if (options.file) {
    prompt.text = TRY(checked_prompt(TRY(read_text_file(*options.file)), prompt_name(*options.file)));
  } else if (options.text && *options.text != "-") {
    prompt.text = TRY(checked_prompt(*options.text, "--prompt"));
  } else {
    auto piped = piped_prompt(options.raw);
    if (!piped && given == 0) {
      if (piped.error().code == ErrorCode::kNotFound) piped.error().code = ErrorCode::kInvalidArgument;
      piped.error().message += "; give one by --prompt or --prompt-file";
    }
    prompt.text = TRY(std::move(piped));
  }
  return prompt;
}

void add_model_flag(CLI::App& command, std::string& model) {
  command.add_option("-m,--model", model, "path of a GGUF file, or a short name (smollm2)");
}

void add_compute_flag(CLI::App& command, std::string& compute) {
  command
      .add_option("--compute", compute,
                  "auto, fp32, bf16, int16 or int8; the first three also with K/V pages of 8 bits: int16+kv8; cuda: a "
                  "GPU; bf16+cuda: a GPU among bf16 workers")
      ->check(parses(parse_compute_option));
}

void add_partition_flags(CLI::App& command, std::string& strategy, std::vector<int32_t>& cuts) {
  CLI::Option* by_rule = command.add_option(
      "--strategy", strategy,
      "how the prompt is cut: auto, single, even, balanced; searched or predicted with --split-table");
  by_rule->check(parses(parse_strategy));
  command
      .add_option("--cuts", cuts, "token positions where the prompt is cut, multiples of 64; without it see --strategy")
      ->excludes(by_rule)
      ->default_str("")
      ->delimiter(',')
      ->check(CLI::Validator(
          [](std::string& text) {
            const auto cut = parse_number<int32_t>(text);
            const bool fits = cut && *cut > 0 && *cut % kPageTokens == 0;
            return fits ? std::string() : fmt::format("'{}' is not a positive multiple of {}", text, kPageTokens);
          },
          ""));
}

void add_split_table_flag(CLI::App& command, std::string& file) {
  command.add_option(
      "--split-table", file,
      "file of `runahead plan search`, for the strategies searched and predicted; without it there are none");
}

void add_prefix_cache_flag(CLI::App& command, bool& prefix_cache) {
  command.add_flag(
      "!--no-prefix-cache", prefix_cache,
      "compute every prompt from its first token on; without it workers keep K/V pages for prompts that begin alike");
}

void add_threads_flag(CLI::App& command, int& threads) {
  command.add_option("--threads", threads, "compute threads")->check(whole_number(1, limits::kEngineThreadsMax));
}

void add_packed_cache_flag(CLI::App& command, std::string& folder) {
  command.add_option(
      "--packed-cache", folder,
      "folder of the packed weights that all workers here share, or off; default: ~/.cache/runahead/packed");
}

void add_model_flags(CLI::App& command, ModelFlags& model) {
  add_model_flag(command, model.name);
  command
      .add_option(
          "--override-kv", model.override_kv,
          "KEY=TYPE:VALUE, a key of the file set anew (TYPE int, float, bool or str), the same for the whole cluster; "
          "may be repeated; default: none")
      ->allow_extra_args(false);
}

void add_chat_template_flag(CLI::App& command, std::string& chat_template) {
  command.add_option("--chat-template,--chat-template-file", chat_template,
                     "file with a Jinja template for chats; default: the model's own");
}

void add_cluster_flags(CLI::App& command, LocalClusterOptions& options) {
  add_split_table_flag(command, options.split_table);
  add_prefix_cache_flag(command, options.prefix_cache);
  add_model_flags(command, options.engine.model);
  add_chat_template_flag(command, options.chat_template);
  command.add_option("-w,--workers", options.workers, "prefill workers")
      ->check(whole_number(1, limits::kWorkersMax - 1));
  add_compute_flag(command, options.engine.compute);
  add_packed_cache_flag(command, options.engine.packed_cache);
  command
      .add_option("--threads-per-worker", options.engine.threads,
                  "compute threads of each prefill worker; 0: an equal part of the CPUs")
      ->check(whole_number(0, limits::kEngineThreadsMax));
  command.add_option("--decode-threads", options.decode_threads, "compute threads of the decode worker; 0: likewise")
      ->check(whole_number(0, limits::kEngineThreadsMax));
  command.add_option("--transport", options.transport, "of K/V pages")->check(CLI::IsMember(kv_transport_choices()));
}

void add_generation_flags(CLI::App& command, GenerationFlags& flags) {
  command.add_option(
      "--generation-defaults", flags.defaults,
      "how requests are sampled that do not say it, as JSON: {\"temperature\": 0.2, \"top_p\": 0.9}; before "
      "generation_config.json and the model's own, which \"none\" switches off; default: those");
  command
      .add_option("--default-max-tokens", flags.max_tokens,
                  "answer tokens of a chat that names none; 0: the rest of the context; default: that, at most an "
                  "eighth of the decode worker's K/V memory")
      ->check(whole_number(0, INT32_MAX));
}

Result<std::string> read_text_file(const std::string& path) {
  const auto failed = [&] {
    return fail(ErrorCode::kNotFound, "cannot read " + prompt_name(path) + ": " + std::strerror(errno));
  };
  const auto too_large = [&] {
    return fail(ErrorCode::kTooLarge, prompt_name(path) + " is larger than the limit of " +
                                          std::to_string(limits::kJsonBodyBytesMax >> 20) + " MiB");
  };
  const Descriptor file{path == "-" ? dup(STDIN_FILENO) : open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (file.fd < 0) return failed();
  struct stat status{};
  if (fstat(file.fd, &status) == 0 && S_ISREG(status.st_mode) &&
      static_cast<size_t>(status.st_size) > limits::kJsonBodyBytesMax)
    return too_large();
  std::string text;
  for (;;) {
    const size_t before = text.size();
    text.resize(before + kReadBytes);
    const ssize_t n = read(file.fd, text.data() + before, kReadBytes);
    if (n < 0 && errno != EINTR) return failed();
    text.resize(before + static_cast<size_t>(std::max<ssize_t>(n, 0)));
    if (n == 0) return text;
    if (text.size() > limits::kJsonBodyBytesMax) return too_large();
  }
}

Result<std::vector<TokenId>> read_token_ids(const std::string& path) {
  const auto json = nlohmann::json::parse(TRY(read_text_file(path)), nullptr, false);
  std::vector<TokenId> ids;
  if (json.is_array())
    for (const auto& id : json)
      if (id.is_number_integer() && id.get<int64_t>() >= 0 && id.get<int64_t>() <= INT32_MAX)
        ids.push_back(id.get<TokenId>());
  if (!json.is_array() || ids.size() != json.size() || ids.empty())
    return fail(ErrorCode::kInvalidArgument, path + " must hold one JSON array of token ids, e.g. [1, 2, 3]",
                "token-ids-file");
  return ids;
}

}  // namespace runahead
