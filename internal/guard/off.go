package guard

// off is the guard that a build goes without. TestGuardsAreWatched puts another file in the place of this one.
const off = ""
