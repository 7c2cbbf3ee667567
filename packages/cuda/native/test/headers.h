// Compiled, never run: our declarations of a library's interface against its own header, which is not part of this repository.
#pragma once

#include <cstddef>
#include <type_traits>

#define SAME(ours, theirs) static_assert(static_cast<long long>(ours) == static_cast<long long>(theirs))

// A value of ours is passed as theirs is: pointers as pointers, structs and numbers of one size.
template <class Ours, class Theirs> constexpr bool alike = sizeof(Ours) == sizeof(Theirs) && std::is_pointer_v<Ours> == std::is_pointer_v<Theirs> && std::is_class_v<Ours> == std::is_class_v<Theirs>;
template <class Ours, class Theirs> struct Calls : std::false_type {};
template <class R, class... A, class S, class... B>
  requires(sizeof...(A) == sizeof...(B))
struct Calls<R (*)(A...), S (*)(B...)> : std::bool_constant<alike<R, S> && (alike<A, B> && ...)> {};
