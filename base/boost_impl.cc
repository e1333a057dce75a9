// The one place where Asio's and Beast's implementation is compiled (cmake/dependencies.cmake).
#include <boost/asio/impl/src.hpp>
#include <boost/beast/src.hpp>
