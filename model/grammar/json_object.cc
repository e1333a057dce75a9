// JsonSchemaWriter: objects.
#include <algorithm>
#include <map>

#include "base/json_text.h"
#include "base/limits.h"
#include "model/grammar/code_points.h"
#include "model/grammar/json_schema.h"

namespace runahead::grammar {

using Json = JsonSchemaWriter::Json;

// Those that are named, in the order of their names; required ones that `properties` does not name come last.
Result<std::vector<JsonSchemaWriter::Field>> JsonSchemaWriter::fields(const Place& place) {
  const Json& schema = place.schema;
  std::vector<Field> fields;
  if (const auto properties = schema.find("properties"); properties != schema.end()) {
    if (!properties->is_object())
      return place.refuse(ErrorCode::kInvalidArgument, "properties", "must be an object of schemas");
    for (const auto& [name, inner] : properties->items())
      fields.push_back({name, rule_of({inner, place.under("properties") + "." + name}), false});
  }
  const auto required = schema.find("required");
  if (required == schema.end()) return fields;
  if (!required->is_array()) return place.refuse(ErrorCode::kInvalidArgument, "required", "must be a list of names");
  for (const Json& name : *required) {
    if (!name.is_string()) return place.refuse(ErrorCode::kInvalidArgument, "required", "must be a list of names");
    const auto field = std::ranges::find(fields, name.get_ref<const std::string&>(), &Field::name);
    if (field != fields.end()) {
      field->required = true;
      continue;
    }
    const auto others = schema.find("additionalProperties");
    const bool described = others != schema.end() && !others->is_boolean();
    if (others != schema.end() && *others == Json(false))
      return place.refuse(ErrorCode::kInvalidArgument, "required",
                          "names '" + name.get<std::string>() + "', which additionalProperties forbids");
    fields.push_back({name.get<std::string>(),
                      described ? rule_of({*others, place.under("additionalProperties")}) : any_value(), true});
  }
  return fields;
}

// Named fields in their order, those that are not required perhaps left out; then others, if they are allowed.
Result<void> JsonSchemaWriter::write_object(const Place& place, Node from, Node to) {
  const Json& schema = place.schema;
  const std::vector<Field> known = TRY(fields(place));
  const auto others = schema.find("additionalProperties");
  const bool named_only = schema.contains("properties") && others == schema.end();
  const bool open = !named_only && (others == schema.end() || *others != Json(false));
  if (open && known.empty() && (others == schema.end() || *others == Json(true)))
    return automaton_.call(from, any_object(), to), Result<void>{};

  const auto value = [this](Node at, Rule rule, Node behind) {
    automaton_.call(blank(automaton_.text(at, ":")), rule, behind);
  };
  int optional = 0;  // in a row
  for (const Field& field : known) {
    optional = field.required ? 0 : optional + 1;
    if (optional > limits::kGrammarOptionalMax)
      return place.refuse(ErrorCode::kUnsupported, "properties",
                          "has more than " + std::to_string(limits::kGrammarOptionalMax) +
                              " fields in a row that may be left out, which is not supported; require some of them");
  }

  const Node first = blank(automaton_.text(from, "{"));  // before the name of the first field
  Node name = first;  // before the name of a field: this one or a later one
  std::vector<Node> last;  // behind fields that may be the last one
  for (const Field& field : known) {
    const Node next_behind = automaton_.node(), next_name = automaton_.node();
    value(automaton_.text(name, to_ordered_text(field.name)), field.value, next_behind);
    automaton_.skip(blank(automaton_.text(next_behind, ",")), next_name);
    if (field.required) last.clear();
    else automaton_.skip(name, next_name);
    last.push_back(next_behind);
    name = next_name;
  }
  if (open) {
    const Rule rule = others == schema.end() || others->is_boolean()
                          ? any_value()
                          : rule_of({*others, place.under("additionalProperties")});
    const Node after_name = automaton_.node(), next_behind = automaton_.node();
    write_other_name(known, name, after_name);
    value(after_name, rule, next_behind);
    automaton_.skip(blank(automaton_.text(next_behind, ",")), name);
    last.push_back(next_behind);
  }
  const Node close = automaton_.node();
  for (const Node behind : last) automaton_.skip(behind, close);
  automaton_.read(blank(close), '}', '}', to);
  if (std::ranges::none_of(known, &Field::required)) automaton_.read(first, '}', '}', to);
  return {};
}

// The names as a tree: where a character leaves it, any may follow; where a name ends in it, this one must go on.
void JsonSchemaWriter::write_other_name(const std::vector<Field>& fields, Node from, Node to) {
  std::map<Node, std::map<uint32_t, Node>> tree;
  std::map<Node, bool> ends;
  const Node root = automaton_.text(from, "\"");
  tree[root];
  for (const Field& field : fields) {
    Node at = root;
    for (std::string_view rest = field.name; !rest.empty();) {
      const auto [child, is_new] = tree[at].try_emplace(take_code_point(rest), 0);
      if (is_new) child->second = automaton_.node();
      at = child->second;
      tree[at];
    }
    ends[at] = true;
  }
  CodePoints escaped('"', '"');  // a name that has one is told apart from none of them: it is not made
  escaped.add('\\', '\\');
  escaped.add(0, 0x1F);
  const Node elsewhere = automaton_.node();
  read_in_string(automaton_, elsewhere, escaped.others(), elsewhere);
  automaton_.read(elsewhere, '"', '"', to);
  for (const auto& [at, children] : tree) {
    CodePoints taken = escaped;
    for (const auto& [point, child] : children) {
      taken.add(point, point);
      if (CodePoints own(point, point); point >= 0x20 && point != '"' && point != '\\')
        read_in_string(automaton_, at, own, child);
    }
    read_in_string(automaton_, at, taken.others(), elsewhere);
    if (!ends.contains(at)) automaton_.read(at, '"', '"', to);
  }
}

}  // namespace runahead::grammar
