"""One module a DVC stage; each reads inputs, calls the library and writes outputs."""
