"""Files that somebody else wrote: looked at, and held to bounds, before a library reads them."""
