// JsonSchemaWriter: the JSON texts that a schema describes, as rules of an automaton. JSON Schema 2020-12 in the part that says
// what a text must be and that an automaton can hold; all else is refused by name, so that an answer is always valid. An answer
// is one of the valid texts, not any: fields come in the order in which `properties` names them, as OpenAI promises it, and only
// those that are named, unless additionalProperties is written; numbers have at most 18 digits before the point and 17 behind
// it; between tokens stands at most one space, or a line end and up to kIndentMax blanks.
//   built      type properties required additionalProperties items prefixItems minItems maxItems enum const anyOf, oneOf (of
//              alternatives that exclude each other), allOf (of one), $ref to the schema itself and into it, minLength maxLength
//              pattern format minimum maximum exclusiveMinimum exclusiveMaximum, true and false
//   skipped    title description default examples deprecated readOnly writeOnly $comment $schema $id $anchor $defs definitions
//              discriminator contentMediaType contentEncoding, and what begins with x-
//   errors     kUnsupported, kInvalidArgument or kTooLarge; Error.param is the place: "properties.age.minimum"
#pragma once

#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "model/grammar/automaton.h"

namespace runahead::grammar {

class JsonSchemaWriter {
 public:
  using Json = nlohmann::ordered_json;
  static constexpr int kIndentMax = 32;

  explicit JsonSchemaWriter(Automaton& automaton) : automaton_(automaton) {}

  // The rule of a value. `schema` must live until this returns, and `$ref` looks into it.
  Result<Rule> write(const Json& schema);
  // Any JSON value, and any object.
  Rule any_value();
  Rule any_object();

 private:
  struct Place {  // a schema and where it stands in the whole one
    const Json& schema;
    std::string path;
    std::string under(std::string_view field) const {
      return path.empty() ? std::string(field) : path + "." + std::string(field);
    }
    std::unexpected<Error> refuse(ErrorCode code, std::string_view field, const std::string& what) const;
  };

  // Rules of what is used in many places, written when first asked for.
  Rule kept(std::optional<Rule>& rule, const std::function<void(Node, Node)>& write);
  Rule blank();
  Rule character();
  Rule any_string();
  Rule any_number();
  Rule any_list();
  Node blank(Node from) { return automaton_.call(from, blank()); }

  Rule rule_of(const Place& place);  // at once, its inside later: schemas may hold themselves
  Result<void> write_open();
  Result<void> write(const Place& place, Node from, Node to);
  Result<void> write_typed(const Place& place, const std::string& type, Node from, Node to);
  Result<void> write_values(const Place& place, const std::vector<Json>& values, Node from, Node to);
  Result<void> write_either(const Place& place, std::string_view field, Node from, Node to);
  Result<void> write_reference(const Place& place, Node from, Node to);
  Result<void> write_string(const Place& place, Node from, Node to);
  Result<void> write_pattern(const Place& place, bool own, Node from, Node to);  // or that of a format
  Result<std::pair<int, std::optional<int>>> counts(const Place& place, const char* least, const char* most);
  Result<void> write_number(const Place& place, bool whole, Node from, Node to);
  Result<void> write_list(const Place& place, Node from, Node to);
  Result<void> write_object(const Place& place, Node from, Node to);
  struct Field {
    std::string name;
    Rule value;
    bool required;
  };
  Result<std::vector<Field>> fields(const Place& place);
  // The name of a field that is none of these, with its quotes.
  void write_other_name(const std::vector<Field>& fields, Node from, Node to);

  Automaton& automaton_;
  const Json* root_ = nullptr;
  std::map<const Json*, Rule> rules_;
  std::vector<std::pair<Place, Rule>> open_;
  std::optional<Rule> blank_, character_, any_string_, any_number_, any_list_, any_object_, any_value_;
};

}  // namespace runahead::grammar
