// runahead tokenize: the ids of a text, as the model's own tokenizer makes them.
#include <cstdio>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/json_text.h"
#include "model/tokenizer/tokenizer.h"
#include "services/commands/commands.h"
#include "services/commands/input.h"
#include "services/commands/output.h"
#include "services/engine/model_path.h"

namespace runahead {
namespace {

using nlohmann::json;

struct TokenizeOptions {
  ModelFlags model;
  std::string file = "-";
  bool parse_special = false, jsonl = false;
};

Result<void> tokenize_lines(const Tokenizer& tokenizer, const std::string& text) {
  std::istringstream lines(text);
  std::string line;
  for (int number = 1; std::getline(lines, line); ++number) {
    const json object = json::parse(line, nullptr, false);
    const auto type_error = [&] {
      return fail(ErrorCode::kInvalidArgument,
                  "line " + std::to_string(number) + " is not {\"text\": string, \"parse_special\": true or false}",
                  "file");
    };
    if (!object.is_object() || !object.contains("text") || !object["text"].is_string()) return type_error();
    if (object.contains("parse_special") && !object["parse_special"].is_boolean()) return type_error();
    const auto ids = TRY(tokenizer.encode(object["text"].get<std::string>(), object.value("parse_special", false)));
    print_json(ids);
  }
  return {};
}

Result<void> tokenize(const TokenizeOptions& options, const CommonOptions& common) {
  const Gguf file = TRY(open_model(options.model));
  const Tokenizer tokenizer = TRY(Tokenizer::load(file));
  const std::string text = TRY(read_text_file(options.file));
  if (options.jsonl) return tokenize_lines(tokenizer, text);
  const auto ids = TRY(tokenizer.encode(text, options.parse_special));
  if (common.json()) {
    print_json(ids);
    return {};
  }
  for (TokenId id : ids) std::printf("%8d %s\n", id, to_text(tokenizer.token_bytes(id)).c_str());
  return {};
}

}  // namespace

void add_tokenize(CommandLine& line) {
  auto options = std::make_shared<TokenizeOptions>();
  CLI::App* command = line.add("tokenize", "print the token ids of a text",
                               [options](const CommonOptions& common) { return tokenize(*options, common); });
  add_model_flags(*command, options->model);
  command->add_option("-f,--file", options->file, "the text, - for standard input");
  command->add_flag("--parse-special", options->parse_special,
                    "<|im_start|> in the text is that token, not its letters");
  command->add_flag("--jsonl", options->jsonl,
                    "the file holds lines {\"text\", \"parse_special\"}; one array a line comes out");
}

}  // namespace runahead
