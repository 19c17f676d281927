package pull

// Due is due.
var Due = due
