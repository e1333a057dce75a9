#include "model/grammar/grammar.h"

#include <deque>
#include <nlohmann/json.hpp>

#include "base/limits.h"
#include "model/grammar/json_schema.h"
#include "model/grammar/text_with.h"

namespace runahead::grammar {
namespace {

using Json = nlohmann::ordered_json;

std::unexpected<Error> malformed() { return fail(ErrorCode::kInvalidArgument, "a grammar is malformed"); }

class GrammarWriter {
 public:
  explicit GrammarWriter(Automaton& automaton) : automaton_(automaton) {}

  Result<Rule> write(const Json& grammar) {
    const Rule rule = automaton_.rule();
    const Node behind = TRY(write(grammar, automaton_.begin(rule)));
    automaton_.skip(behind, automaton_.end(rule));
    return rule;
  }

 private:
  Result<Node> write(const Json& grammar, Node from) {
    const Deeper deeper(depth_);
    if (!grammar.is_object() || grammar.empty() || depth_ > limits::kJsonDepthMax) return malformed();
    const std::string& kind = grammar.begin().key();
    const Json& value = grammar.begin().value();
    if (kind == "json_schema") return automaton_.call(from, TRY(schemas_.emplace_back(automaton_).write(value)));
    if (kind == "json_object") return automaton_.call(from, schemas_.emplace_back(automaton_).any_object());
    if (kind == "text" && value.is_string()) return automaton_.text(from, value.get_ref<const std::string&>());
    if (kind == "token" && value.is_string())
      return automaton_.text(from, control_bytes(value.get_ref<const std::string&>()));
    if (kind == "text_until" && value.is_string() && !value.get_ref<const std::string&>().empty())
      return write_text_until(automaton_, value.get_ref<const std::string&>(), from);
    if (kind == "text_with") return write_text_with(grammar, from);
    if (kind == "list" && grammar.contains("between")) return write_list(value, grammar["between"], from);
    if (!value.is_array()) return malformed();
    if (kind == "either") return write_either(value, from);
    if (kind != "sequence") return malformed();
    for (const Json& part : value) from = TRY(write(part, from));
    return from;
  }
  Result<Node> write_either(const Json& parts, Node from) {
    const Node behind = automaton_.node();
    for (const Json& part : parts) automaton_.skip(TRY(write(part, from)), behind);
    return behind;
  }
  Result<Node> write_list(const Json& each, const Json& between, Node from) {
    if (!between.is_string()) return malformed();
    const Node first = automaton_.node();
    automaton_.skip(from, first);
    const Node behind = TRY(write(each, first));
    automaton_.skip(automaton_.text(behind, between.get_ref<const std::string&>()), first);
    return behind;
  }

  Result<Node> write_text_with(const Json& grammar, Node from) {
    const auto text_of = [&grammar](const char* name) { return grammar.value(name, ""); };
    if (!grammar.contains("behind") || !grammar["behind"].is_string() || text_of("behind").empty()) return malformed();
    const TextWith text = write_text(automaton_, text_of("behind"), text_of("not_first"), from);
    const Node after = TRY(write(grammar.begin().value(), text.found));
    automaton_.skip(after, grammar.value("once", false) ? text.end : text.again);
    return text.end;
  }

  struct Deeper {
    explicit Deeper(int& depth) : depth(depth) { ++depth; }
    ~Deeper() { --depth; }
    Deeper(const Deeper&) = delete;
    int& depth;
  };

  Automaton& automaton_;
  int depth_ = 0;
  std::deque<JsonSchemaWriter> schemas_;
};

}  // namespace

Result<std::shared_ptr<const Automaton>> compile(std::string_view text) {
  if (text.size() > limits::kGrammarBytesMax)
    return fail(ErrorCode::kTooLarge, "has " + std::to_string(text.size()) + " bytes; at most " +
                                          std::to_string(limits::kGrammarBytesMax) + " are taken");
  const Json grammar = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  auto automaton = std::make_shared<Automaton>();
  const Rule start = TRY(GrammarWriter(*automaton).write(grammar));
  TRY(automaton->finish(start));
  return std::shared_ptr<const Automaton>(std::move(automaton));
}

}  // namespace runahead::grammar
