"""WIKIMETER sets: works of a catalogue, downloaded, cut into segments and labelled. The files inside say
how."""
