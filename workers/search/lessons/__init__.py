"""What finished searches teach later ones with the same model and verifier.

A search that has ended says what it saw as a `Lesson`: how random candidates scored, what each arm of the automatic
search gained on them, what scores midway were worth, what the algorithm found. Lessons are added up as sums, which the
store keeps for each model and verifier; `Learnt` reads them. From it come the options that a request leaves open
(`priors`), written into the request before it is stored, so that a job stays a function of its record, and what a plan
says of the outcome (`forecast`).

Conditions differ in how well they score, and samplers too. What can be is therefore measured within a search, against
its own random candidates, in their standard deviations; scores as such are pooled over searches, and what sets these
apart is part of their spread. Only searches of one condition by a single verifier teach, whose end no score decided.
"""
