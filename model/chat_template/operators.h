// Operators of the chat-template language on values, with Python's semantics; integers have 64 bits and overflow is an
// error, never a wrong number.
#pragma once

#include "model/chat_template/ast.h"
#include "model/chat_template/value.h"

namespace runahead::jinja {

Result<Value> arithmetic(Op op, const Value& a, const Value& b, Budget& budget);
Result<Value> negate(const Value& value);
Result<bool> compare(Op op, const Value& a, const Value& b, Budget& budget);
Result<bool> contains(const Value& container, const Value& item, Budget& budget);

// object.name and object[key]. A missing one is undefined, not an error; anything of an undefined value is an error.
Result<Value> attribute(const Value& object, std::string_view name, Budget& budget);
Result<Value> item(const Value& object, const Value& key, Budget& budget);
// object[start:stop:step]; none means absent.
Result<Value> slice(const Value& object, const Value& start, const Value& stop, const Value& step, Budget& budget);

}  // namespace runahead::jinja
